{{ config(indexes=[{'columns': ['as_of_date', 'account_id'], 'unique': true}]) }}

-- depends_on: {{ ref('kpi_dates') }}
{%- set usage_days_ago = days_between('usage_days.usage_date', 'candidates.as_of_date') %}

with

dates_due as (

    select as_of_date from {{ ref('growth_dates') }}

),

profile_rules as (

    {{ thresholds_on_dates(['trial_idle_days'], 'dates_due', kind='integer', seed='profile_rules') }}

),

tenants as (

    select distinct
        as_of_date,
        account_id
    from {{ ref('growth_account_keys') }}
    where source_system = 'behavior'

),

-- A contract makes a customer from its signature on, whatever its term.
signed as (

    select distinct
        account_keys.as_of_date,
        account_keys.account_id
    from {{ ref('growth_account_keys') }} as account_keys
    inner join {{ ref('stg_contracts') }} as contracts
        on
            account_keys.account_key = contracts.account_key
            and {{ stands_on('contracts', 'account_keys.as_of_date') }}
    where
        account_keys.source_system <> 'behavior'
        and {{ local_date('contracts.signed_at') }} <= account_keys.as_of_date

),

candidates as (

    select
        tenants.as_of_date,
        tenants.account_id,
        case when spans.account_id is null then tenants.account_id else spans.usage_series_id end as usage_series_id
    from tenants
    left join {{ ref('account_features') }} as customers
        on
            tenants.as_of_date = customers.as_of_date
            and tenants.account_id = customers.account_id
    left join signed
        on
            tenants.as_of_date = signed.as_of_date
            and tenants.account_id = signed.account_id
    left join {{ ref('int_account_spans') }} as spans
        on
            tenants.account_id = spans.account_id
            and {{ holds_on('spans', 'tenants.as_of_date') }}
    where
        customers.account_id is null
        and signed.account_id is null

),

-- One look into the index for each candidate: joined, the days of all accounts would be read.
use_sums as (

    select
        candidates.as_of_date,
        candidates.account_id,
        candidates.usage_series_id,
        sums.*
    from candidates
    cross join lateral (
        select
            max(usage_days.usage_date) as last_used_on,
            max(case when usage_days.logins > 0 then usage_days.usage_date end) as last_login_on,
            count(case when usage_days.logins > 0 then 1 end) as login_days_90d,
            {%- for days in [30, 90] %}
            coalesce(sum(usage_days.logins) filter (where {{ usage_days_ago }} < {{ days }}), 0) as logins_{{ days }}d,
            coalesce(sum(usage_days.core_feature_uses) filter (where {{ usage_days_ago }} < {{ days }}), 0)
                as core_feature_uses_{{ days }}d,
            {%- endfor %}
            {{ bit_union('usage_days.core_feature_mask') }} as core_feature_mask,
            count(case when usage_days.core_feature_mask is null then 1 end) as days_without_mask,
            count(case when {{ usage_days_ago }} < 30 then 1 end) as active_days_30d,
            sum(usage_days.sessions) as sessions_90d
        from {{ usage_series() }} as usage_days
        where
            usage_days.series_id = candidates.usage_series_id
            and usage_days.usage_date <= candidates.as_of_date
            and usage_days.usage_date > {{ days_before('candidates.as_of_date', 90) }}
    ) as sums

),

standing as (

    select use_sums.*
    from use_sums
    inner join profile_rules on use_sums.as_of_date = profile_rules.as_of_date
    where
        {{ days_between('use_sums.last_used_on', 'use_sums.as_of_date') }} <= profile_rules.trial_idle_days

),

begun as (

    select
        standing.as_of_date,
        standing.account_id,
        firsts.first_used_on
    from standing
    cross join lateral (
        select min(usage_days.usage_date) as first_used_on
        from {{ usage_series() }} as usage_days
        where
            usage_days.series_id = standing.usage_series_id
            and usage_days.usage_date <= standing.as_of_date
    ) as firsts

),

-- Days of a run lie as far apart as their places do, so day less place is the same for all of them. The window function
-- keeps the look into the index.
login_days as (

    select
        standing.as_of_date,
        standing.account_id,
        placed_days.run_id
    from standing
    cross join lateral (
        select
            {{ days_before(
                'usage_days.usage_date', 'cast(row_number() over (order by usage_days.usage_date) as integer)'
            ) }} as run_id
        from {{ usage_series() }} as usage_days
        where
            usage_days.series_id = standing.usage_series_id
            and usage_days.usage_date <= standing.as_of_date
            and usage_days.usage_date > {{ days_before('standing.as_of_date', 90) }}
            and usage_days.logins > 0
    ) as placed_days

),

run_lengths as (

    select
        as_of_date,
        account_id,
        count(*) as run_days
    from login_days
    group by as_of_date, account_id, run_id

),

runs as (

    select
        as_of_date,
        account_id,
        max(run_days) as login_days_in_a_row_90d
    from run_lengths
    group by as_of_date, account_id

),

final as (

    select
        standing.as_of_date,
        standing.account_id,
        begun.first_used_on,
        standing.last_used_on,
        {{ days_between('begun.first_used_on', 'standing.as_of_date') }} as days_since_first_use,
        {{ days_between('standing.last_used_on', 'standing.as_of_date') }} as days_since_last_use,
        {{ days_between('standing.last_login_on', 'standing.as_of_date') }} as days_since_last_login,
        standing.login_days_90d,
        coalesce(runs.login_days_in_a_row_90d, 0) as login_days_in_a_row_90d,
        cast(standing.logins_30d as bigint) as logins_30d,
        cast(standing.logins_90d as bigint) as logins_90d,
        cast(standing.core_feature_uses_30d as bigint) as core_feature_uses_30d,
        cast(standing.core_feature_uses_90d as bigint) as core_feature_uses_90d,
        -- Of days that hold no mask nobody knows which features were used.
        case when standing.days_without_mask = 0 then coalesce({{ bit_count('standing.core_feature_mask') }}, 0) end
            as core_features_used_90d,
        standing.active_days_30d,
        cast(standing.sessions_90d as bigint) as sessions_90d
    from standing
    inner join begun
        on
            standing.as_of_date = begun.as_of_date
            and standing.account_id = begun.account_id
    left join runs
        on
            standing.as_of_date = runs.as_of_date
            and standing.account_id = runs.account_id

)

select * from final
