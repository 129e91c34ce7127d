-- depends_on: {{ ref('int_identity_links') }}
with recursive

decisions as (

    select * from {{ source('identity', 'decisions_in_force') }}

),

-- With the day since which, without a break, the record has been known to be that account.
latest_links as (

    select
        links.record_id,
        links.source_system,
        links.account_id,
        links.matched_by,
        coalesce(max(earlier.valid_until_date), {{ beginning() }}) as known_since
    from {{ ref('int_identity_links') }} as links
    left join {{ ref('int_identity_links') }} as earlier
        on
            links.record_id = earlier.record_id
            and links.account_id <> earlier.account_id
    where links.valid_until_date is null
    group by links.record_id, links.source_system, links.account_id, links.matched_by

),

-- What the sources and people state: one row per statement.
customer_merges as (

    select
        customer_id as account_id,
        merged_into_customer_id as into_account_id,
        min(coalesce(merged_on, {{ local_date('valid_from') }})) as merged_on
    from {{ ref('stg_customers') }}
    where merged_into_customer_id is not null
    group by customer_id, merged_into_customer_id

),

latest_customer_merges as (

    select
        customer_id,
        merged_into_customer_id
    from {{ ref('stg_customers') }}
    where is_latest and merged_into_customer_id is not null

),

record_merges as (

    select
        record_id,
        merged_into_record_id as into_record_id,
        min({{ local_date('valid_from') }}) as merged_on
    from {{ ref('int_crm_companies') }}
    where merged_into_record_id is not null
    group by record_id, merged_into_record_id
    union all
    -- The kept record tells which it took in; each of those is looked up by its own id.
    select
        merged.record_id,
        kept.record_id as into_record_id,
        min({{ local_date('kept.valid_from') }}) as merged_on
    from {{ ref('int_crm_companies') }} as kept
    inner join {{ ref('int_crm_companies') }} as merged
        on
            kept.crm_system = merged.crm_system
            and ';' || kept.merged_record_ids || ';' like '%;' || merged.source_record_id || ';%'
    where kept.merged_record_ids is not null and merged.is_latest
    group by merged.record_id, kept.record_id

),

-- A customer's number names the account that remains, whichever record the CRM kept. Accounts are one from when the
-- records are, and are known to be those accounts.
account_merges_of_records as (

    select
        case
            when merged.account_id <> merged.record_id and kept.account_id = kept.record_id then kept.account_id
            else merged.account_id
        end as account_id,
        case
            when merged.account_id <> merged.record_id and kept.account_id = kept.record_id then merged.account_id
            else kept.account_id
        end as into_account_id,
        greatest(record_merges.merged_on, merged.known_since, kept.known_since) as merged_on,
        merged.source_system as stated_by
    from record_merges
    inner join latest_links as merged on record_merges.record_id = merged.record_id
    inner join latest_links as kept on record_merges.into_record_id = kept.record_id
    where merged.matched_by <> 'decision' and kept.matched_by <> 'decision'

),

statements as (

    select
        customer_merges.account_id,
        customer_merges.into_account_id,
        customer_merges.merged_on,
        'orders' as stated_by,
        0 as is_decided
    from customer_merges
    inner join latest_customer_merges
        on
            customer_merges.account_id = latest_customer_merges.customer_id
            and customer_merges.into_account_id = latest_customer_merges.merged_into_customer_id
    union all
    select
        account_id,
        into_account_id,
        merged_on,
        stated_by,
        0 as is_decided
    from account_merges_of_records
    union all
    select
        account_id,
        into_account_id,
        effective_from as merged_on,
        'decision' as stated_by,
        1 as is_decided
    from decisions
    where action = 'merge'

),

stated as (

    select
        account_id,
        into_account_id,
        max(is_decided) as is_decided,
        coalesce(min(case when is_decided = 1 then merged_on end), min(merged_on)) as merged_on,
        {{ joined_texts('stated_by', ', ') }} as stated_by
    from statements
    where account_id <> into_account_id
    group by account_id, into_account_id

),

separated as (

    select source_account_id as account_id
    from decisions
    where action = 'separate' and source_system = 'orders'

),

tax_ids as (

    select
        customer_id,
        {{ normal_tax_id('tax_id') }} as tax_id
    from {{ ref('stg_customers') }}
    where is_latest

),

judged as (

    select
        stated.*,
        max(stated.is_decided) over (partition by stated.account_id) as account_is_decided,
        count(*) over (partition by stated.account_id) as statements_of_account,
        separated.account_id is not null as is_separated,
        coalesce(own.tax_id <> kept.tax_id and stated.stated_by not like '%orders%', false) as tax_ids_differ
    from stated
    left join separated on stated.account_id = separated.account_id
    left join tax_ids as own on stated.account_id = own.customer_id
    left join tax_ids as kept on stated.into_account_id = kept.customer_id

),

edges as (

    select
        *,
        case
            when is_decided = 1 then 'merged'
            when is_separated then 'separated'
            when account_is_decided = 1 then 'overruled'
            when statements_of_account > 1 then 'disagrees'
            when tax_ids_differ then 'tax_ids_differ'
            else 'merged'
        end as verdict
    from judged

),

-- Where the merges from an account lead; thirty in a row are more than a company has.
reached as (

    select
        account_id,
        into_account_id as reached_id,
        1 as steps
    from edges
    where verdict = 'merged'
    union all
    select
        reached.account_id,
        edges.into_account_id as reached_id,
        reached.steps + 1 as steps
    from reached
    inner join edges on reached.reached_id = edges.account_id
    where edges.verdict = 'merged' and reached.reached_id <> reached.account_id and reached.steps < 30

),

circles as (

    select distinct account_id
    from reached
    where reached_id = account_id

),

final as (

    select
        edges.account_id,
        edges.into_account_id,
        edges.merged_on,
        edges.stated_by,
        case
            when edges.verdict = 'merged' and circles.account_id is not null then 'in_a_circle'
            else edges.verdict
        end as verdict
    from edges
    left join circles on edges.account_id = circles.account_id

)

select * from final
