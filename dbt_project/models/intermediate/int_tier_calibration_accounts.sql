{{
    config(
        materialized='incremental',
        incremental_strategy='append',
        full_refresh=false,
        on_schema_change='fail',
        indexes=[{'columns': ['quarter_start', 'scope', 'account_id'], 'unique': true}],
        post_hook="analyze {{ this }}",
    )
}}

{%- set is_due = calibration_is_due() %}

with

calibrations as (

    {{ calibrations_due() }}

),

calibration_days as (

    select known_until as as_of_date from calibrations

),

thresholds as (

    {{ thresholds_on_dates(
        ['frequency_window_days', 'dormant_days', 'industry_min_accounts', 'calibration_min_accounts'],
        'calibration_days'
    ) }}

),

policies as (

    select
        calibrations.*,
        thresholds.frequency_window_days,
        thresholds.dormant_days,
        thresholds.industry_min_accounts,
        thresholds.calibration_min_accounts
    from calibrations
    inner join thresholds on calibrations.known_until = thresholds.as_of_date

),

order_lines as (

    select
        account_crosswalk.account_id,
        lines_as_known.quarter_start,
        lines_as_known.input_date,
        lines_as_known.customer_id,
        lines_as_known.order_id,
        lines_as_known.order_date,
        lines_as_known.line_type,
        lines_as_known.amount
    from ({{ order_lines_as_known('calibrations') }}) as lines_as_known
    inner join {{ ref('int_account_crosswalk') }} as account_crosswalk
        on
            account_crosswalk.source_system = 'orders'
            and lines_as_known.customer_id = account_crosswalk.source_account_id
            and not account_crosswalk.is_internal
            and {{ holds_on('account_crosswalk', 'lines_as_known.input_date') }}
    {%- if not is_due %}
    where false
    {%- endif %}

),

order_parts as (

    select
        quarter_start,
        account_id,
        customer_id,
        order_id,
        order_date,
        min(input_date) as input_date,
        max(case when line_type = 'sale' then 1 else 0 end) as has_sale,
        sum(case when line_type <> 'non_product' then amount else 0 end) as net_revenue
    from order_lines
    group by quarter_start, account_id, customer_id, order_id, order_date

),

-- An order counts on the first of its days with a sale, as in int_account_days.
placed_parts as (

    select
        *,
        has_sale = 1 and row_number() over (
            partition by quarter_start, account_id, customer_id, order_id order by has_sale desc, order_date asc
        ) = 1 as is_order,
        min(case when has_sale = 1 then order_date end) over (partition by quarter_start, account_id)
            as first_order_date
    from order_parts

),

order_sums as (

    select
        placed_parts.quarter_start,
        placed_parts.account_id,
        {{ days_between('min(placed_parts.first_order_date)', 'min(placed_parts.input_date)') }} + 1 as tenure_days,
        {{ days_between(
            'max(case when placed_parts.is_order then placed_parts.order_date end)', 'min(placed_parts.input_date)'
        ) }} as days_since_last_order,
        count(
            case
                when
                    placed_parts.is_order
                    and {{ days_between('placed_parts.order_date', 'placed_parts.input_date') }}
                    < policies.frequency_window_days
                    then 1
            end
        ) as orders_in_window,
        sum(
            case when placed_parts.order_date >= placed_parts.first_order_date then placed_parts.net_revenue else 0 end
        ) as net_revenue_since_first_order
    from placed_parts
    inner join policies on placed_parts.quarter_start = policies.quarter_start
    where placed_parts.first_order_date is not null
    group by placed_parts.quarter_start, placed_parts.account_id

),

companies as (

    select
        company_versions.quarter_start,
        account_crosswalk.account_id,
        company_versions.industry,
        row_number() over (
            partition by company_versions.quarter_start, account_crosswalk.account_id
            order by
                case when company_versions.is_archived then 1 else 0 end asc,
                {{ directness('account_crosswalk.matched_by') }} asc,
                company_versions.valid_from desc,
                company_versions.record_id asc
        ) as place_in_account
    from (
        select
            versions.*,
            calibrations.quarter_start,
            calibrations.input_date,
            row_number() over (
                partition by calibrations.quarter_start, versions.record_id
                order by versions.valid_from desc, versions.load_seq desc
            ) as newness
        from {{ ref('int_crm_companies') }} as versions
        inner join calibrations
            on
                versions.valid_from < {{ day_start('calibrations.quarter_start') }}
                and versions.known_on <= calibrations.known_until
    ) as company_versions
    inner join {{ ref('int_account_crosswalk') }} as account_crosswalk
        on
            company_versions.crm_system = account_crosswalk.source_system
            and company_versions.source_record_id = account_crosswalk.source_account_id
            and not account_crosswalk.is_internal
            and {{ holds_on('account_crosswalk', 'company_versions.input_date') }}
    where company_versions.newness = 1

),

ranked_accounts as (

    select
        policies.*,
        order_sums.account_id,
        companies.industry,
        order_sums.days_since_last_order,
        {{ orders_per_quarter(
            'order_sums.orders_in_window', 'order_sums.tenure_days', 'policies.frequency_window_days'
        ) }} as orders_per_quarter,
        {{ yearly_net_spend('order_sums.net_revenue_since_first_order', 'order_sums.tenure_days') }} as yearly_net_spend
    from order_sums
    inner join policies on order_sums.quarter_start = policies.quarter_start
    left join companies
        on
            order_sums.quarter_start = companies.quarter_start
            and order_sums.account_id = companies.account_id
            and companies.place_in_account = 1
    where order_sums.days_since_last_order < policies.dormant_days

),

counted_accounts as (

    select
        *,
        count(*) over (partition by quarter_start) as all_accounts,
        case when industry is not null then count(*) over (partition by quarter_start, industry) end
            as industry_accounts
    from ranked_accounts

),

-- An industry that is large enough has a yardstick of its own; the others share one, with all accounts where they alone
-- are too few.
own_scopes as (

    select
        *,
        coalesce(industry_accounts >= industry_min_accounts, false) as has_own_scope
    from counted_accounts
    where all_accounts >= calibration_min_accounts

),

sharing_accounts as (

    select
        *,
        count(case when not has_own_scope then 1 end) over (partition by quarter_start) < calibration_min_accounts
            as are_too_few
    from own_scopes

),

scoped_accounts as (

    select
        sharing.*,
        sharing.industry as scope
    from sharing_accounts as sharing
    where sharing.has_own_scope
    union all
    select
        sharing.*,
        'all' as scope
    from sharing_accounts as sharing
    where not sharing.has_own_scope or sharing.are_too_few

),

final as (

    select
        quarter_start,
        input_date,
        known_until,
        scope,
        account_id,
        orders_per_quarter,
        yearly_net_spend,
        days_since_last_order
    from scoped_accounts

)

select * from final
