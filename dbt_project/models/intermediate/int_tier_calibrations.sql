{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        full_refresh=false,
        on_schema_change='fail',
        indexes=[{'columns': ['quarter_start', 'scope'], 'unique': true}],
    )
}}

with

thresholds as (

    {{ policy_rows('thresholds', key='name') }}

),

calibration_accounts as (

    select * from {{ ref('int_tier_calibration_accounts') }}
    where quarter_start = {{ calibration_quarter() }} {{ 'and false' if not calibration_is_due() }}

),

calibration_days as (

    select distinct known_until as as_of_date from calibration_accounts

),

thresholds_then as (

    {{ policy_rows_on_dates('thresholds', key='name', dates='calibration_days') }}

),

tier_shares_then as (

    {{ policy_rows_on_dates('tier_shares', key='tier', dates='calibration_days') }}

),

tier_policy as (

    {{ tier_policy('thresholds_then', 'tier_shares_then') }}

),

ranked as (

    select
        calibration_accounts.*,
        (rank() over (partition by calibration_accounts.scope order by calibration_accounts.orders_per_quarter) - 1)
        * tier_policy.weight_frequency
        + (rank() over (partition by calibration_accounts.scope order by calibration_accounts.yearly_net_spend) - 1)
        * tier_policy.weight_monetary as rank_points
    from calibration_accounts
    cross join tier_policy

),

cuts as (

    {{ tier_cuts('ranked', 'tier_policy') }}

),

inputs as (

    select
        quarter_start,
        input_date,
        known_until,
        scope,
        {{ fingerprint_of(
            "account_id || ';' || " ~ as_text('orders_per_quarter') ~ " || ';' || " ~ as_text('yearly_net_spend')
            ~ " || ';' || " ~ as_text('days_since_last_order'),
            'account_id'
        ) }} as fingerprint
    from calibration_accounts
    group by quarter_start, input_date, known_until, scope

),

final as (

    select
        inputs.quarter_start,
        inputs.input_date,
        inputs.known_until,
        cuts.*,
        tier_policy.weight_frequency,
        tier_policy.weight_monetary,
        tier_policy.share_s,
        tier_policy.share_s_a,
        tier_policy.share_s_a_b,
        inputs.fingerprint,
        '{{ var("run_id") }}' as run_id
    from inputs
    inner join cuts on inputs.scope = cuts.scope
    cross join tier_policy

)

select * from final
