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

thresholds as (

    {{ policy_rows('thresholds', key='name') }}

),

calibration as (

    select
        quarters.quarter_start,
        {{ days_before('quarters.quarter_start', 1) }} as input_date,
        {{ days_before('quarters.quarter_start', 'cast(1 - quarters.grace_days as integer)') }} as known_until
    from (
        select
            {{ calibration_quarter() }} as quarter_start,
            {{ threshold('calibration_grace_days') }} as grace_days
    ) as quarters

),

calibration_days as (

    select known_until as as_of_date from calibration

),

thresholds_then as (

    {{ policy_rows_on_dates('thresholds', key='name', dates='calibration_days') }}

),

order_lines as (

    select
        account_crosswalk.account_id,
        calibration.input_date,
        lines_as_known.customer_id,
        lines_as_known.order_id,
        lines_as_known.order_date,
        lines_as_known.line_type,
        lines_as_known.amount
    from ({{ order_lines_as_known(known_until='(select known_until from calibration)') }}) as lines_as_known
    inner join calibration on lines_as_known.order_date <= calibration.input_date
    inner join {{ ref('int_account_crosswalk') }} as account_crosswalk
        on
            account_crosswalk.source_system = 'orders'
            and lines_as_known.customer_id = account_crosswalk.source_account_id
            and not account_crosswalk.is_internal
            and {{ holds_on('account_crosswalk', 'calibration.input_date') }}
    {%- if not is_due %}
    where false
    {%- endif %}

),

-- An order counts on the first of its days with a sale, as in int_account_days.
orders as (

    select
        account_id,
        customer_id,
        order_id,
        min(input_date) as input_date,
        min(order_date) as order_date
    from order_lines
    where line_type = 'sale'
    group by account_id, customer_id, order_id

),

order_sums as (

    select
        account_id,
        min(order_date) as first_order_date,
        {{ days_between('min(order_date)', 'min(input_date)') }} + 1 as tenure_days,
        {{ days_between('max(order_date)', 'min(input_date)') }} as days_since_last_order,
        count(
            case
                when
                    {{ days_between('order_date', 'input_date') }}
                    < {{ threshold('frequency_window_days', 'thresholds_then') }}
                    then 1
            end
        ) as orders_in_window
    from orders
    group by account_id

),

spend as (

    select
        order_sums.account_id,
        sum(order_lines.amount) as net_revenue_since_first_order
    from order_sums
    inner join order_lines
        on
            order_sums.account_id = order_lines.account_id
            and order_sums.first_order_date <= order_lines.order_date
    where order_lines.line_type <> 'non_product'
    group by order_sums.account_id

),

companies as (

    select
        account_crosswalk.account_id,
        company_versions.industry,
        row_number() over (
            partition by account_crosswalk.account_id
            order by
                case when company_versions.is_archived then 1 else 0 end asc,
                {{ directness('account_crosswalk.matched_by') }} asc,
                company_versions.valid_from desc,
                company_versions.record_id asc
        ) as place_in_account
    from (
        select
            versions.*,
            calibration.input_date,
            row_number() over (
                partition by versions.record_id order by versions.valid_from desc, versions.load_seq desc
            ) as newness
        from {{ ref('int_crm_companies') }} as versions
        inner join calibration
            on
                versions.valid_from < {{ day_start('calibration.quarter_start') }}
                and versions.known_on <= calibration.known_until
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
        order_sums.account_id,
        companies.industry,
        order_sums.days_since_last_order,
        {{ orders_per_quarter(
            'order_sums.orders_in_window',
            'order_sums.tenure_days',
            threshold('frequency_window_days', 'thresholds_then')
        ) }} as orders_per_quarter,
        {{ yearly_net_spend('spend.net_revenue_since_first_order', 'order_sums.tenure_days') }} as yearly_net_spend
    from order_sums
    inner join spend on order_sums.account_id = spend.account_id
    left join companies
        on
            order_sums.account_id = companies.account_id
            and companies.place_in_account = 1
    where order_sums.days_since_last_order < {{ threshold('dormant_days', 'thresholds_then') }}

),

counted_accounts as (

    select
        *,
        count(*) over () as all_accounts,
        case when industry is not null then count(*) over (partition by industry) end as industry_accounts
    from ranked_accounts

),

-- An industry that is large enough has a yardstick of its own; the others share one, with all accounts where they alone
-- are too few.
own_scopes as (

    select
        *,
        coalesce(industry_accounts >= {{ threshold('industry_min_accounts', 'thresholds_then') }}, false)
            as has_own_scope
    from counted_accounts
    where all_accounts >= {{ threshold('calibration_min_accounts', 'thresholds_then') }}

),

sharing_accounts as (

    select
        *,
        count(case when not has_own_scope then 1 end) over ()
        < {{ threshold('calibration_min_accounts', 'thresholds_then') }} as are_too_few
    from own_scopes

),

scoped_accounts as (

    select
        industry as scope,
        account_id,
        orders_per_quarter,
        yearly_net_spend,
        days_since_last_order
    from sharing_accounts
    where has_own_scope
    union all
    select
        'all' as scope,
        account_id,
        orders_per_quarter,
        yearly_net_spend,
        days_since_last_order
    from sharing_accounts
    where not has_own_scope or are_too_few

),

final as (

    select
        calibration.quarter_start,
        calibration.input_date,
        calibration.known_until,
        scoped_accounts.scope,
        scoped_accounts.account_id,
        scoped_accounts.orders_per_quarter,
        scoped_accounts.yearly_net_spend,
        scoped_accounts.days_since_last_order
    from scoped_accounts
    cross join calibration

)

select * from final
