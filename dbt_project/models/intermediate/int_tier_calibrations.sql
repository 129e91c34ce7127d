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

calibration_accounts as (

    select
        accounts.*,
        accounts.known_until as as_of_date
    from {{ ref('int_tier_calibration_accounts') }} as accounts
    {%- if is_incremental() %}
    where accounts.quarter_start not in (select made.quarter_start from {{ this }} as made)
    {%- endif %}

),

calibration_days as (

    select distinct as_of_date from calibration_accounts

),

tier_policy as (

    {{ tier_policy('calibration_days') }}

),

ranked as (

    select
        calibration_accounts.*,
        (
            rank() over (
                partition by calibration_accounts.as_of_date, calibration_accounts.scope
                order by calibration_accounts.orders_per_quarter
            ) - 1
        ) * tier_policy.weight_frequency
        + (
            rank() over (
                partition by calibration_accounts.as_of_date, calibration_accounts.scope
                order by calibration_accounts.yearly_net_spend
            ) - 1
        ) * tier_policy.weight_monetary as rank_points
    from calibration_accounts
    inner join tier_policy on calibration_accounts.as_of_date = tier_policy.as_of_date

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
        cuts.scope,
        cuts.accounts,
        {%- for tier in ['s', 'a'] %}
        cuts.last_{{ tier }}_rank_points,
        cuts.last_{{ tier }}_yearly_net_spend,
        cuts.last_{{ tier }}_days_since_last_order,
        cuts.last_{{ tier }}_account_id,
        {%- endfor %}
        tier_policy.weight_frequency,
        tier_policy.weight_monetary,
        tier_policy.share_s,
        tier_policy.share_s_a,
        tier_policy.share_s_a_b,
        inputs.fingerprint,
        '{{ var("run_id") }}' as run_id
    from inputs
    inner join cuts
        on
            inputs.known_until = cuts.as_of_date
            and inputs.scope = cuts.scope
    inner join tier_policy on inputs.known_until = tier_policy.as_of_date

)

select * from final
