with

crosswalk as (

    select * from {{ ref('int_account_crosswalk') }}
    where valid_until_date is null

),

links as (

    select * from {{ ref('int_identity_links') }}
    where valid_until_date is null

),

companies as (

    select
        companies.crm_system as source_system,
        companies.source_record_id as source_account_id,
        companies.record_id,
        companies.account_number,
        {{ normal_tax_id('companies.tax_id') }} as tax_id,
        companies.parent_record_id,
        links.account_id as own_account_id,
        links.matched_by,
        links.verdict,
        links.candidate_ids,
        links.evidence
    from {{ ref('int_crm_companies') }} as companies
    inner join links on companies.record_id = links.record_id
    where companies.is_latest and not companies.is_archived

),

customers as (

    select
        customer_id,
        parent_customer_id,
        {{ normal_tax_id('tax_id') }} as tax_id
    from {{ ref('stg_customers') }}
    where is_latest and not is_archived

),

-- Ids of the order system; that a number is none of them says something only where its customers are known.
customer_ids as (

    select source_account_id as customer_id from crosswalk
    where source_system = 'orders'

),

tax_id_holders as (

    select
        tax_id,
        {{ joined_texts('customer_id', ', ') }} as customer_ids
    from customers
    where tax_id is not null
    group by tax_id

),

doubled_numbers as (

    select
        source_system,
        account_number,
        {{ joined_texts('source_account_id', ', ') }} as source_account_ids
    from companies
    where matched_by = 'account_number'
    group by source_system, account_number
    having count(*) > 1

),

refused_merges as (

    select
        coalesce(links.source_system, 'orders') as source_system,
        coalesce(links.source_account_id, account_merges.account_id) as source_account_id,
        account_merges.into_account_id,
        account_merges.stated_by || ' merges it into ' || account_merges.into_account_id
        || ' from ' || {{ as_text('account_merges.merged_on') }}
        || case account_merges.verdict
            when 'disagrees' then ', which is not the only account it is said to be'
            when 'tax_ids_differ' then ', whose tax id in the order system is another'
            else ', from where merges lead back to it'
        end as evidence
    from {{ ref('int_account_merges') }} as account_merges
    left join links on account_merges.account_id = links.record_id
    where account_merges.verdict in ('disagrees', 'tax_ids_differ', 'in_a_circle')

),

unresolved as (

    select
        source_system,
        source_account_id,
        'no_customer' as kind,
        cast(null as text) as candidate_ids,
        'it has no customer number, and no rule brings it to a customer' as evidence
    from companies
    where verdict = 'alone'
    union all
    select
        companies.source_system,
        companies.source_account_id,
        'unknown_number' as kind,
        cast(null as text) as candidate_ids,
        'its number ' || companies.account_number || ' is of no customer' as evidence
    from companies
    left join customer_ids on companies.account_number = customer_ids.customer_id
    where
        companies.matched_by = 'account_number'
        and customer_ids.customer_id is null
        and exists (select 1 from customers)
    union all
    select
        source_system,
        source_account_id,
        'unknown_tenant' as kind,
        cast(null as text) as candidate_ids,
        'no order, customer or CRM company has this id' as evidence
    from crosswalk
    where source_system = 'behavior' and matched_by = 'own_id'
    union all
    select
        companies.source_system,
        companies.source_account_id,
        'unknown_parent' as kind,
        cast(null as text) as candidate_ids,
        'its parent ' || companies.parent_record_id || ' is not among the companies' as evidence
    from companies
    left join links as parents on companies.parent_record_id = parents.record_id
    where companies.parent_record_id is not null and parents.record_id is null
    union all
    select
        'orders' as source_system,
        customers.customer_id as source_account_id,
        'unknown_parent' as kind,
        cast(null as text) as candidate_ids,
        'its parent ' || customers.parent_customer_id || ' is not among the customers' as evidence
    from customers
    left join customer_ids on customers.parent_customer_id = customer_ids.customer_id
    where customers.parent_customer_id is not null and customer_ids.customer_id is null

),

ambiguous as (

    select
        source_system,
        source_account_id,
        'several_candidates' as kind,
        candidate_ids,
        evidence
    from companies
    where verdict = 'ambiguous'

),

contradictory as (

    select
        source_system,
        source_account_id,
        'evidence_disagrees' as kind,
        candidate_ids,
        evidence
    from companies
    where verdict = 'contradictory'
    union all
    select
        companies.source_system,
        companies.source_account_id,
        'number_against_tax_id' as kind,
        companies.account_number || coalesce(', ' || tax_id_holders.customer_ids, '') as candidate_ids,
        'its number is ' || companies.account_number || coalesce(' (tax id ' || named.tax_id || ')', '')
        || ', but its tax id is ' || companies.tax_id
        || coalesce(', that of ' || tax_id_holders.customer_ids, '') as evidence
    from companies
    left join customers as named on companies.account_number = named.customer_id
    left join tax_id_holders on companies.tax_id = tax_id_holders.tax_id
    where
        companies.matched_by = 'account_number'
        and companies.tax_id is not null
        and companies.tax_id is distinct from named.tax_id
        and (named.tax_id is not null or tax_id_holders.tax_id is not null)
    union all
    select
        companies.source_system,
        companies.source_account_id,
        'doubled_number' as kind,
        cast(null as text) as candidate_ids,
        'its number ' || companies.account_number || ' stands on the active records '
        || doubled_numbers.source_account_ids as evidence
    from companies
    inner join doubled_numbers
        on
            companies.source_system = doubled_numbers.source_system
            and companies.account_number = doubled_numbers.account_number
    where companies.matched_by = 'account_number'
    union all
    select
        source_system,
        source_account_id,
        'merge_not_applied' as kind,
        {{ joined_texts('into_account_id', ', ') }} as candidate_ids,
        {{ joined_texts('evidence', '; ') }} as evidence
    from refused_merges
    group by source_system, source_account_id
    union all
    select
        tenants.source_system,
        tenants.source_account_id,
        'id_means_two_accounts' as kind,
        tenants.account_id || ', ' || order_customers.account_id as candidate_ids,
        'the tenant is ' || tenants.account_id || ', the customer of the same id ' || order_customers.account_id
            as evidence
    from crosswalk as tenants
    inner join crosswalk as order_customers on tenants.source_account_id = order_customers.source_account_id
    where
        tenants.source_system = 'behavior'
        and order_customers.source_system = 'orders'
        and tenants.account_id <> order_customers.account_id

),

found as (

    select
        *,
        'unresolved' as state
    from unresolved
    union all
    select
        *,
        'ambiguous' as state
    from ambiguous
    union all
    select
        *,
        'contradictory' as state
    from contradictory

),

final as (

    select
        found.source_system,
        found.source_account_id,
        found.state,
        found.kind,
        crosswalk.account_id,
        found.candidate_ids,
        found.evidence
    from found
    left join crosswalk
        on
            found.source_system = crosswalk.source_system
            and found.source_account_id = crosswalk.source_account_id
    where coalesce(not crosswalk.is_internal, true)

)

select * from final
