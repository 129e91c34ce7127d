{{ config(indexes=[{'columns': ['as_of_date', 'account_id'], 'unique': true}]) }}

{#- Month-ends on which an account's standing is looked up beside the date's own: at or just before the begin of the
    windows whose outcome a rate tells. -#}
{%- set months_back = {'before': 1, '3m_before': 3, '12m_before': 12} %}

with

months as (

    select
        as_of_date,
        {{ month_start('as_of_date') }} as month
    from {{ ref('kpi_dates') }}

),

kpi_dates as (

    select
        as_of_date,
        {%- for name, months in months_back.items() %}
        {{ days_before(months_after('month', 1 - months), 1) }} as date_{{ name }},
        {%- endfor %}
        month
    from months

),

standing_dates as (

    select as_of_date from kpi_dates
    {%- for name in months_back %}
    union
    select date_{{ name }} as as_of_date from kpi_dates
    {%- endfor %}

),

-- Where an account stood on each of the dates, once: it is read four times, each time by date and account alone. Of one
-- condition more PostgreSQL expects one row, and then compares all accounts of a date with one another.
standings as (

    select
        account_tiers.as_of_date,
        account_tiers.account_id,
        account_tiers.tier,
        account_segments.segment,
        account_value_tiers.value_tier,
        account_lifecycle.age_stage
    from {{ ref('account_tiers') }} as account_tiers
    inner join {{ ref('account_segments') }} as account_segments
        on
            account_tiers.as_of_date = account_segments.as_of_date
            and account_tiers.account_id = account_segments.account_id
    inner join {{ ref('account_value_tiers') }} as account_value_tiers
        on
            account_tiers.as_of_date = account_value_tiers.as_of_date
            and account_tiers.account_id = account_value_tiers.account_id
    inner join {{ ref('account_lifecycle') }} as account_lifecycle
        on
            account_tiers.as_of_date = account_lifecycle.as_of_date
            and account_tiers.account_id = account_lifecycle.account_id
    where account_tiers.as_of_date in (select standing_dates.as_of_date from standing_dates)

),

account_profiles as (

    select
        as_of_date,
        account_id,
        industry
    from {{ ref('account_profiles') }}
    where as_of_date in (select kpi_dates.as_of_date from kpi_dates)

),

account_kinds as (

    select
        as_of_date,
        account_id,
        company_size
    from {{ ref('account_kinds') }}
    where as_of_date in (select kpi_dates.as_of_date from kpi_dates)

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date in (select kpi_dates.as_of_date from kpi_dates)

),

features_before as (

    select
        as_of_date,
        account_id,
        orders_mtd,
        logins_mtd
    from {{ ref('account_features') }}
    where as_of_date in (select kpi_dates.date_before from kpi_dates)

),

thresholds as (

    {{ thresholds_on_dates(
        ['full_frequency', 'upsell_min_rise', 'pareto_accounts'], 'kpi_dates', seed='kpi_thresholds'
    ) }}

),

-- Before the first event nobody's use is known; after it, who has none did not use the product.
usage_begin as (

    select min(usage_date) as first_usage_date from {{ ref('int_usage_days') }}

),

-- Who ordered in the last 365 days, the highest net revenue first.
revenue_places as (

    select
        as_of_date,
        account_id,
        row_number() over (partition by as_of_date order by net_revenue_365d desc, account_id asc) as place,
        count(*) over (partition by as_of_date) as accounts
    from account_features
    where orders_365d > 0

),

final as (

    select
        account_features.as_of_date,
        account_features.account_id,
        kpi_dates.month,
        {{ month_start('account_features.first_order_date') }} as cohort_month,
        standings_now.tier,
        standings_now.segment,
        standings_now.value_tier,
        standings_now.age_stage,
        account_profiles.industry,
        account_kinds.company_size,
        {%- for name in months_back %}
        standings_{{ name }}.tier as tier_{{ name }},
        standings_{{ name }}.segment as segment_{{ name }},
        standings_{{ name }}.value_tier as value_tier_{{ name }},
        {%- endfor %}
        -- Of the calendar month.
        case when account_features.orders_mtd > 0 then 1 else 0 end as has_ordered_mtd,
        case when account_features.orders_mtd > 0 or account_features.logins_mtd > 0 then 1 else 0 end as is_active_mtd,
        case when features_before.orders_mtd > 0 or features_before.logins_mtd > 0 then 1 else 0 end
            as was_active_month_before,
        account_features.orders_mtd,
        account_features.net_revenue_mtd,
        account_features.active_days_mtd,
        account_features.active_minutes_mtd,
        -- Of windows of days. Who could come back is who had ordered by the end of the earlier window.
        {%- for days in [30, 90] %}
        case when account_features.orders_{{ days }}d > 0 or account_features.logins_{{ days }}d > 0 then 1 else 0 end
            as is_active_{{ days }}d,
        case
            when account_features.first_order_date > {{ days_before('account_features.as_of_date', days) }} then 0
            when account_features.orders_prior_{{ days }}d > 0 or account_features.logins_prior_{{ days }}d > 0 then 1
            else 0
        end as was_active_prior_{{ days }}d,
        {%- endfor %}
        case when account_features.orders_90d > 0 then 1 else 0 end as has_ordered_90d,
        case
            when account_features.first_order_date <= {{ days_before('account_features.as_of_date', 90) }} then 1 else 0
        end as had_ordered_before_90d,
        case when account_features.orders_365d > 0 then 1 else 0 end as has_ordered_365d,
        case when account_features.orders_prior_365d > 0 then 1 else 0 end as has_ordered_prior_365d,
        account_features.orders_30d,
        account_features.gross_sales_30d,
        account_features.orders_365d,
        -- All but an account's very first order.
        account_features.orders_365d
        - case
            when account_features.first_order_date > {{ days_before('account_features.as_of_date', 365) }} then 1 else 0
        end as repurchases_365d,
        account_features.net_revenue_365d,
        account_features.net_revenue_total,
        case
            when revenue_places.place <= ceil(revenue_places.accounts * thresholds.pareto_accounts) then 1 else 0
        end as is_top_by_revenue,
        case
            when account_features.orders_prior_365d > 0 and account_features.net_revenue_prior_365d > 0 then 1 else 0
        end as could_spend_more,
        case
            when
                account_features.orders_prior_365d > 0
                and account_features.net_revenue_prior_365d > 0
                and account_features.net_revenue_365d
                >= account_features.net_revenue_prior_365d * (1 + thresholds.upsell_min_rise)
                then 1
            else 0
        end as spends_more,
        case
            when account_features.categories_total is null then null
            when account_features.orders_prior_365d > 0 and account_features.new_categories_365d > 0 then 1
            else 0
        end as buys_new_category,
        case
            when account_features.categories_total is null then null
            when account_features.orders_prior_365d > 0 then 1
            else 0
        end as could_buy_new_category,
        -- Scales from 0 to 1.
        cast(
            case
                when usage_begin.first_usage_date <= account_features.as_of_date
                    then least(
                        cast(account_features.core_features_used_30d as numeric(18, 8))
                        / nullif(account_features.core_features_in_force, 0),
                        1
                    )
            end
            as numeric(12, 8)
        ) as feature_depth,
        cast(least(account_features.orders_per_quarter / thresholds.full_frequency, 1) as numeric(12, 8))
            as order_frequency
    from account_features
    inner join kpi_dates on account_features.as_of_date = kpi_dates.as_of_date
    inner join thresholds on account_features.as_of_date = thresholds.as_of_date
    cross join usage_begin
    left join account_profiles
        on
            account_features.as_of_date = account_profiles.as_of_date
            and account_features.account_id = account_profiles.account_id
    left join account_kinds
        on
            account_features.as_of_date = account_kinds.as_of_date
            and account_features.account_id = account_kinds.account_id
    left join features_before
        on
            kpi_dates.date_before = features_before.as_of_date
            and account_features.account_id = features_before.account_id
    left join revenue_places
        on
            account_features.as_of_date = revenue_places.as_of_date
            and account_features.account_id = revenue_places.account_id
    left join standings as standings_now
        on
            account_features.as_of_date = standings_now.as_of_date
            and account_features.account_id = standings_now.account_id
    {%- for name in months_back %}
    left join standings as standings_{{ name }}
        on
            kpi_dates.date_{{ name }} = standings_{{ name }}.as_of_date
            and account_features.account_id = standings_{{ name }}.account_id
    {%- endfor %}

)

select * from final
