with

crosswalk as (

    select
        *,
        coalesce(valid_from_date, {{ beginning() }}) as from_date,
        coalesce(valid_until_date, {{ end_of_time() }}) as until_date
    from {{ ref('int_account_crosswalk') }}

),

parent_ids as (

    select
        companies.crm_system as source_system,
        companies.source_record_id as source_account_id,
        companies.parent_record_id,
        companies.is_archived,
        {{ version_days('companies') }}
    from {{ ref('int_crm_companies') }} as companies

),

customer_parents as (

    select
        'orders' as source_system,
        customer_id as source_account_id,
        'orders:' || parent_customer_id as parent_record_id,
        is_archived,
        {{ local_date('valid_from') }} as valid_from_date,
        lead({{ local_date('valid_from') }}) over (
            partition by customer_id order by valid_from, load_seq
        ) as valid_until_date
    from {{ ref('stg_customers') }}

),

statements as (

    select
        source_system,
        source_account_id,
        parent_record_id,
        valid_from_date as from_date,
        coalesce(valid_until_date, {{ end_of_time() }}) as until_date
    from (
        select * from parent_ids
        union all
        select * from customer_parents
    ) as versions
    where parent_record_id is not null and not is_archived

),

-- Child and parent are the accounts they are at that time, so that a merge changes who is whose parent.
resolved as (

    select
        children.account_id,
        parents.account_id as parent_account_id,
        case when statements.source_system = 'orders' then 0 else children.preference end as preference,
        statements.source_system as stated_by,
        greatest(statements.from_date, children.from_date, parents.from_date) as from_date,
        least(statements.until_date, children.until_date, parents.until_date) as until_date
    from statements
    inner join crosswalk as children
        on
            statements.source_system = children.source_system
            and statements.source_account_id = children.source_account_id
    inner join crosswalk as parents
        on statements.parent_record_id = parents.source_system || ':' || parents.source_account_id
    where children.account_id <> parents.account_id

),

-- Neighbouring periods of one parent are one.
stretches as (

    select
        *,
        sum(begins) over (
            partition by account_id, parent_account_id, stated_by order by from_date, until_date
            rows between unbounded preceding and current row
        ) as stretch
    from (
        select
            *,
            case
                when from_date <= max(until_date) over (
                    partition by account_id, parent_account_id, stated_by order by from_date, until_date
                    rows between unbounded preceding and 1 preceding
                ) then 0
                else 1
            end as begins
        from resolved
        where from_date < until_date
    ) as placed

),

final as (

    select
        account_id,
        parent_account_id,
        stated_by,
        min(from_date) as valid_from_date,
        nullif(max(until_date), {{ end_of_time() }}) as valid_until_date,
        min(preference) as preference
    from stretches
    group by account_id, parent_account_id, stated_by, stretch

)

select * from final
