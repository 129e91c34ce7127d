{{
    config(
        materialized='incremental',
        incremental_strategy='remap',
        full_refresh=false,
        on_schema_change='append_new_columns',
        indexes=[{'columns': ['source_system', 'source_account_id']}, {'columns': ['account_id']}],
    )
}}

with recursive

decisions as (

    select * from {{ source('identity', 'decisions_in_force') }}

),

company_versions as (

    select
        *,
        max(load_seq) over (partition by crm_system) as system_load_seq
    from {{ ref('int_crm_companies') }}
    where is_latest

),

latest_customers as (

    select * from {{ ref('stg_customers') }}
    where is_latest

),

order_customers as (

    select account_id as customer_id from {{ ref('int_account_days') }}
    union
    select customer_id from latest_customers

),

tenants as (

    select distinct account_id as tenant_id from {{ ref('int_usage_days') }}

),

numbers as (

    select customer_id as account_id from order_customers
    union
    select account_number as account_id from company_versions
    where account_number is not null

),

tenant_decisions as (

    select *
    from (
        select
            *,
            row_number() over (partition by source_account_id order by decision_id desc) as newness
        from decisions
        where action in ('link', 'separate') and source_system = 'behavior'
    ) as ranked
    where newness = 1

),

-- Each id and the account it stands for before merges.
own_mappings as (

    select
        'orders' as source_system,
        customer_id as source_account_id,
        customer_id as account_id,
        'own_id' as matched_by,
        {{ beginning() }} as from_date,
        {{ end_of_time() }} as until_date
    from order_customers
    union all
    select
        'behavior' as source_system,
        tenants.tenant_id as source_account_id,
        case
            when tenant_decisions.action = 'link' then tenant_decisions.account_id
            when tenant_decisions.action = 'separate' then 'behavior:' || tenants.tenant_id
            else tenants.tenant_id
        end as account_id,
        case
            when tenant_decisions.action is not null then 'decision'
            when numbers.account_id is not null then 'account_number'
            else 'own_id'
        end as matched_by,
        {{ beginning() }} as from_date,
        {{ end_of_time() }} as until_date
    from tenants
    left join numbers on tenants.tenant_id = numbers.account_id
    left join tenant_decisions on tenants.tenant_id = tenant_decisions.source_account_id
    union all
    select
        source_system,
        source_account_id,
        account_id,
        matched_by,
        coalesce(valid_from_date, {{ beginning() }}) as from_date,
        coalesce(valid_until_date, {{ end_of_time() }}) as until_date
    from {{ ref('int_identity_links') }}

),

-- Where each account that was merged away leads, step by step; a later step is not taken before an earlier one.
merge_steps as (

    select
        account_id,
        into_account_id as reached_id,
        merged_on as from_date,
        1 as steps
    from {{ ref('int_account_merges') }}
    where verdict = 'merged'
    union all
    select
        merge_steps.account_id,
        account_merges.into_account_id as reached_id,
        greatest(merge_steps.from_date, account_merges.merged_on) as from_date,
        merge_steps.steps + 1 as steps
    from merge_steps
    inner join {{ ref('int_account_merges') }} as account_merges on merge_steps.reached_id = account_merges.account_id
    where account_merges.verdict = 'merged' and merge_steps.steps < 30

),

merge_places as (

    select
        account_id,
        reached_id,
        steps,
        from_date
    from merge_steps
    union all
    select
        account_id,
        account_id as reached_id,
        0 as steps,
        {{ beginning() }} as from_date
    from merge_steps
    where steps = 1

),

merge_periods as (

    select *
    from (
        select
            account_id,
            reached_id,
            from_date,
            coalesce(
                lead(from_date) over (partition by account_id order by steps), {{ end_of_time() }}
            ) as until_date
        from merge_places
    ) as periods
    where from_date < until_date

),

mappings as (

    select
        own_mappings.source_system,
        own_mappings.source_account_id,
        coalesce(merge_periods.reached_id, own_mappings.account_id) as account_id,
        case
            when merge_periods.reached_id <> own_mappings.account_id then 'merge'
            else own_mappings.matched_by
        end as matched_by,
        coalesce(greatest(own_mappings.from_date, merge_periods.from_date), own_mappings.from_date) as from_date,
        coalesce(least(own_mappings.until_date, merge_periods.until_date), own_mappings.until_date) as until_date
    from own_mappings
    left join merge_periods
        on
            own_mappings.account_id = merge_periods.account_id
            and own_mappings.from_date < merge_periods.until_date
            and own_mappings.until_date > merge_periods.from_date

),

-- Since when, and for how long, which account is internal, by the records that are the account itself.
internal_rules as (

    select
        kind,
        value,
        is_internal,
        case
            when effective_from = min(effective_from) over () then {{ beginning() }}
            else effective_from
        end as from_date,
        coalesce(
            lead(effective_from) over (partition by kind, value order by effective_from), {{ end_of_time() }}
        ) as until_date
    from {{ ref('internal_accounts') }}

),

parties as (

    select
        own_mappings.account_id,
        company_versions.account_name as party_name,
        company_versions.domain,
        company_versions.is_internal
    from own_mappings
    inner join company_versions
        on
            own_mappings.source_system = company_versions.crm_system
            and own_mappings.source_account_id = company_versions.source_record_id
    where {{ directness('own_mappings.matched_by') }} = 1
    union all
    select
        customer_id as account_id,
        customer_name as party_name,
        domain,
        is_internal
    from latest_customers

),

internal_marks as (

    select
        parties.account_id,
        internal_rules.from_date,
        internal_rules.until_date,
        internal_rules.kind || ' ' || internal_rules.value as internal_by
    from parties
    inner join internal_rules
        on
            (internal_rules.kind = 'source_flag' and parties.is_internal)
            or (internal_rules.kind = 'domain' and {{ normal_domain('parties.domain') }} = internal_rules.value)
            or (internal_rules.kind = 'name_pattern' and lower(parties.party_name) like internal_rules.value)
    where internal_rules.is_internal
    union
    select
        value as account_id,
        from_date,
        until_date,
        kind || ' ' || value as internal_by
    from internal_rules
    where kind = 'customer_id' and is_internal
    union
    select
        account_id,
        coalesce(effective_from, {{ beginning() }}) as from_date,
        {{ end_of_time() }} as until_date,
        'decision ' || {{ as_text('decision_id') }} as internal_by
    from decisions
    where action = 'exclude'

),

internal_dates as (

    select
        account_id,
        from_date
    from internal_marks
    union
    select
        account_id,
        until_date as from_date
    from internal_marks
    where until_date < {{ end_of_time() }}
    union
    select
        account_id,
        {{ beginning() }} as from_date
    from internal_marks

),

internal_stretches as (

    select
        account_id,
        from_date,
        coalesce(lead(from_date) over (partition by account_id order by from_date), {{ end_of_time() }}) as until_date
    from internal_dates

),

internal_periods as (

    select
        internal_stretches.account_id,
        internal_stretches.from_date,
        internal_stretches.until_date,
        {{ joined_texts('internal_marks.internal_by', ', ') }} as internal_by
    from internal_stretches
    left join internal_marks
        on
            internal_stretches.account_id = internal_marks.account_id
            and internal_stretches.from_date >= internal_marks.from_date
            and internal_stretches.from_date < internal_marks.until_date
    group by internal_stretches.account_id, internal_stretches.from_date, internal_stretches.until_date

),

dated_mappings as (

    select
        mappings.source_system,
        mappings.source_account_id,
        mappings.account_id,
        mappings.matched_by,
        coalesce(greatest(mappings.from_date, internal_periods.from_date), mappings.from_date) as from_date,
        coalesce(least(mappings.until_date, internal_periods.until_date), mappings.until_date) as until_date,
        internal_periods.internal_by
    from mappings
    left join internal_periods
        on
            mappings.account_id = internal_periods.account_id
            and mappings.from_date < internal_periods.until_date
            and mappings.until_date > internal_periods.from_date

),

final as (

    select
        dated_mappings.source_system,
        dated_mappings.source_account_id,
        dated_mappings.account_id,
        dated_mappings.matched_by,
        nullif(dated_mappings.from_date, {{ beginning() }}) as valid_from_date,
        nullif(dated_mappings.until_date, {{ end_of_time() }}) as valid_until_date,
        dated_mappings.internal_by is not null as is_internal,
        dated_mappings.internal_by,
        coalesce(not company_versions.is_archived, true) as is_active,
        row_number() over (
            order by
                case when company_versions.is_archived then 1 else 0 end asc,
                company_versions.system_load_seq desc nulls last,
                {{ directness('dated_mappings.matched_by') }} asc,
                company_versions.valid_from desc nulls last,
                dated_mappings.source_system asc,
                dated_mappings.source_account_id asc,
                dated_mappings.from_date asc
        ) as preference
    from dated_mappings
    left join company_versions
        on
            dated_mappings.source_system = company_versions.crm_system
            and dated_mappings.source_account_id = company_versions.source_record_id

)

select * from final
