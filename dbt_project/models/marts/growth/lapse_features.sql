{{
    config(
        indexes=[{'columns': ['as_of_date', 'account_id'], 'unique': true}],
        pre_hook="{{ join_by_hash() }}",
    )
}}

-- depends_on: {{ ref('kpi_dates') }}
{%- set usage_days_ago = days_between('usage_days.usage_date', 'unordered.as_of_date') %}
{%- set of_features = [
    'days_since_last_order', 'gap_ratio', 'mean_order_gap_days', 'orders_total', 'order_days_total', 'orders_90d',
    'orders_180d', 'orders_365d', 'orders_per_quarter', 'net_revenue_90d', 'net_revenue_prior_90d',
    'net_revenue_365d', 'yearly_net_spend', 'average_order_value', 'return_rate_365d', 'tickets_90d', 'open_tickets',
    'urgent_tickets_90d', 'nps_latest', 'nps_previous', 'open_deals', 'open_deal_amount', 'won_deals_365d', 'contacts',
    'has_decision_maker',
] %}
{%- set of_use = [
    'logins_30d', 'logins_prior_30d', 'logins_90d', 'days_since_last_login', 'core_feature_uses_30d',
    'core_feature_uses_90d', 'active_days_30d', 'sessions_90d',
] %}

with

dates_due as (

    select
        as_of_date,
        renewal_grace_days
    from {{ ref('growth_dates') }}

),

thresholds as (

    {{ thresholds_on_dates(['lapse_horizon_days'], 'dates_due', kind='integer') }}

),

-- As they stood on the date: what was signed, prolonged, shortened or archived later is not known.
contracts as (

    select
        dates_due.as_of_date,
        dates_due.renewal_grace_days,
        account_keys.account_id,
        contracts.contract_id,
        contracts.renews_contract_id,
        contracts.ends_on,
        {{ contract_start('contracts') }} as starts_on,
        {{ local_date('contracts.sent_at') }} as sent_date,
        case
            when {{ local_date('contracts.signed_at') }} <= dates_due.as_of_date
                then {{ local_date('contracts.signed_at') }}
        end as signed_date,
        contracts.contract_value * case
            when contracts.currency = '{{ var("reporting_currency") }}' then 1
            else exchange_rates.rate
        end as contract_value
    from dates_due
    inner join {{ ref('stg_contracts') }} as contracts on {{ stands_on('contracts', 'dates_due.as_of_date') }}
    inner join {{ ref('growth_account_keys') }} as account_keys
        on
            contracts.account_key = account_keys.account_key
            and dates_due.as_of_date = account_keys.as_of_date
    left join {{ ref('stg_exchange_rates') }} as exchange_rates
        on
            contracts.currency = exchange_rates.currency
            and dates_due.as_of_date >= exchange_rates.effective_from
            and (dates_due.as_of_date < exchange_rates.effective_until or exchange_rates.effective_until is null)
    where
        account_keys.source_system <> 'behavior'

),

-- The contract that ends last speaks for the account; one without an end before all others.
signed as (

    select
        *,
        row_number() over (
            partition by as_of_date, account_id
            order by
                case when ends_on is null then 0 else 1 end asc,
                ends_on desc,
                starts_on desc,
                contract_id asc
        ) as place
    from contracts
    where signed_date is not null

),

signed_sums as (

    select
        as_of_date,
        account_id,
        count(*) as contracts_signed,
        min(starts_on) as first_start_date,
        max(signed_date) as last_signed_date
    from signed
    group by as_of_date, account_id

),

held as (

    select
        signed.*,
        signed_sums.contracts_signed,
        signed_sums.first_start_date,
        signed_sums.last_signed_date
    from signed
    inner join signed_sums
        on
            signed.as_of_date = signed_sums.as_of_date
            and signed.account_id = signed_sums.account_id
    where
        signed.place = 1
        and {{ is_in_force('signed', 'signed.as_of_date', 'signed.renewal_grace_days') }}

),

standing as (

    select
        signed.as_of_date,
        signed.account_id,
        count(*) as contracts
    from signed
    where {{ is_in_force('signed', 'signed.as_of_date', 'signed.renewal_grace_days') }}
    group by signed.as_of_date, signed.account_id

),

renewals_sent as (

    select distinct
        held.as_of_date,
        held.account_id
    from held
    inner join standing
        on
            held.as_of_date = standing.as_of_date
            and held.account_id = standing.account_id
    inner join contracts
        on
            held.as_of_date = contracts.as_of_date
            and held.account_id = contracts.account_id
    where
        contracts.signed_date is null
        and contracts.sent_date <= held.as_of_date
        and (
            {{ renews('contracts', 'held', 'standing.contracts') }}
        )

),

-- Who has not ordered has no row in account_features; its use is summed here.
unordered as (

    select
        held.as_of_date,
        held.account_id,
        case when spans.account_id is null then held.account_id else spans.usage_series_id end as usage_series_id
    from held
    left join {{ ref('account_features') }} as features
        on
            held.as_of_date = features.as_of_date
            and held.account_id = features.account_id
    left join {{ ref('int_account_spans') }} as spans
        on
            held.account_id = spans.account_id
            and {{ holds_on('spans', 'held.as_of_date') }}
    where features.account_id is null

),

-- One look into the index for each of them, as in trial_features.
use_sums as (

    select
        unordered.as_of_date,
        unordered.account_id,
        sums.*
    from unordered
    cross join lateral (
        select
            {%- for measure in ['logins', 'core_feature_uses'] %}
            {%- for days in [30, 90] %}
            coalesce(sum(usage_days.{{ measure }}) filter (where {{ usage_days_ago }} < {{ days }}), 0)
                as {{ measure }}_{{ days }}d,
            {%- endfor %}
            {%- endfor %}
            coalesce(sum(usage_days.logins) filter (where {{ usage_days_ago }} between 30 and 59), 0)
                as logins_prior_30d,
            max(case when usage_days.logins > 0 then usage_days.usage_date end) as last_login_on,
            count(case when {{ usage_days_ago }} < 30 then 1 end) as active_days_30d,
            coalesce(sum(usage_days.sessions) filter (where {{ usage_days_ago }} < 90), 0) as sessions_90d
        from {{ usage_series() }} as usage_days
        where
            usage_days.series_id = unordered.usage_series_id
            and usage_days.usage_date <= unordered.as_of_date
    ) as sums

),

use_of_unordered as (

    select
        *,
        {{ days_between('last_login_on', 'as_of_date') }} as days_since_last_login
    from use_sums

),

joined as (

    select
        held.as_of_date,
        held.account_id,
        held.contract_id,
        held.signed_date,
        held.starts_on,
        held.ends_on,
        held.renewal_grace_days,
        thresholds.lapse_horizon_days,
        held.contracts_signed,
        held.first_start_date,
        held.last_signed_date,
        held.contract_value,
        {%- for name in of_use %}
        coalesce(features.{{ name }}, use_of_unordered.{{ name }}) as {{ name }},
        {%- endfor %}
        {%- for name in of_features %}
        features.{{ name }},
        {%- endfor %}
        renewals_sent.account_id is not null as has_renewal_sent
    from held
    inner join thresholds on held.as_of_date = thresholds.as_of_date
    left join renewals_sent
        on
            held.as_of_date = renewals_sent.as_of_date
            and held.account_id = renewals_sent.account_id
    left join {{ ref('account_features') }} as features
        on
            held.as_of_date = features.as_of_date
            and held.account_id = features.account_id
    left join use_of_unordered
        on
            held.as_of_date = use_of_unordered.as_of_date
            and held.account_id = use_of_unordered.account_id

),

final as (

    select
        as_of_date,
        account_id,
        contract_id,
        ends_on as contract_ends_on,
        renewal_grace_days,
        lapse_horizon_days,
        -- The first day that nothing holds the account any more is the one after the grace.
        ends_on is null
        or {{ days_before('ends_on', '-(renewal_grace_days + 1)') }}
        <= {{ days_before('as_of_date', '-lapse_horizon_days') }} as is_due,
        case when ends_on is not null then greatest({{ days_between('as_of_date', 'ends_on') }}, 0) end
            as days_to_contract_end,
        case when ends_on is null then 0 else greatest({{ days_between('ends_on', 'as_of_date') }}, 0) end
            as days_past_contract_end,
        greatest({{ days_between('first_start_date', 'as_of_date') }}, 0) as days_under_contract,
        {{ days_between('starts_on', 'ends_on') }} + 1 as contract_term_days,
        contracts_signed,
        -- Of a contract without an end the value of the whole term tells nothing of a year.
        cast(contract_value * 365 / nullif({{ days_between('starts_on', 'ends_on') }} + 1, 0) as numeric(18, 2))
            as yearly_contract_value,
        {%- for name in of_use + of_features %}
        {{ name }},
        {%- endfor %}
        has_renewal_sent,
        -- Signing is something it did, too, and everybody here has signed.
        least(
            {{ days_between('last_signed_date', 'as_of_date') }},
            coalesce(days_since_last_order, {{ days_between('last_signed_date', 'as_of_date') }}),
            coalesce(days_since_last_login, {{ days_between('last_signed_date', 'as_of_date') }})
        ) as days_since_last_activity
    from joined

)

select * from final
