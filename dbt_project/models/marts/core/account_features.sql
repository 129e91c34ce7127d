{{
    config(
        pre_hook="{{ remove_claimed_restatements() }}",
        post_hook=[
            "{{ unsettle_kpis() }}",
            "{{ settle_claim(source('intermediate', 'restatement_queue')) }}",
            "{{ remember_definition(var('features_definition')) }}",
        ],
    )
}}

{%- set order_days_ago = days_between('account_days.order_date', 'pairs.as_of_date') %}
{%- set usage_days_ago = days_between('usage_days.usage_date', 'pairs.as_of_date') %}
{%- set order_is_of_month = 'account_days.order_date >= pair_dates.month_start' %}
{%- set usage_is_of_month = 'usage_days.usage_date >= pair_dates.month_start' %}
{%- set ticket_days_ago = days_between('tickets.created_date', 'pair_companies.as_of_date') %}

-- Everything below is a join with the rows that are due, for one date as for many. Models are referred to where they
-- are read: a CTE read twice is copied whole, and could then not be reached by index.
with

pair_dates as (

    select
        as_of_date,
        {{ month_start('as_of_date') }} as month_start
    from {{ ref('account_features_due') }}
    group by as_of_date

),

core_features_in_force as (

    select
        as_of_date,
        count(*) as core_features
    from ({{ policy_rows_on_dates('core_features', key='feature', dates='pair_dates') }}) as core_features
    where is_core
    group by as_of_date

),

frequency_windows as (

    select
        as_of_date,
        value as window_days
    from ({{ policy_rows_on_dates('thresholds', key='name', dates='pair_dates') }}) as thresholds
    where name = 'frequency_window_days'

),

-- One look into the index for each row that is due: joined and grouped, the days of many dates would be sorted whole.
order_sums as (

    select
        pairs.as_of_date,
        pairs.account_id,
        pairs.order_series_id,
        pairs.first_order_date,
        frequency_windows.window_days as frequency_window_days,
        sums.*
    from {{ ref('account_features_due') }} as pairs
    inner join pair_dates on pairs.as_of_date = pair_dates.as_of_date
    inner join frequency_windows on pairs.as_of_date = frequency_windows.as_of_date
    cross join lateral (
        select
            max(case when account_days.orders > 0 then account_days.order_date end) as last_order_date,
            max(case when account_days.country is not null then account_days.order_date end) as country_date,
            count(case when account_days.orders > 0 then 1 end) as order_days,
            count(case when account_days.orders > 0 and {{ order_days_ago }} < 365 then 1 end) as order_days_365d,
            sum(account_days.orders) as orders_total,
            sum(account_days.gross_sales) as gross_sales_total,
            sum(account_days.net_revenue) as net_revenue_total,
            sum(case when account_days.order_date >= pairs.first_order_date then account_days.net_revenue else 0 end)
                as net_revenue_since_first_order,
            {%- for days in [30, 90, 365] %}
            coalesce(sum(account_days.orders) filter (where {{ order_days_ago }} < {{ days }}), 0)
                as orders_{{ days }}d,
            coalesce(sum(account_days.gross_sales) filter (where {{ order_days_ago }} < {{ days }}), 0)
                as gross_sales_{{ days }}d,
            coalesce(sum(account_days.returns_amount) filter (where {{ order_days_ago }} < {{ days }}), 0)
                as returns_amount_{{ days }}d,
            coalesce(sum(account_days.net_revenue) filter (where {{ order_days_ago }} < {{ days }}), 0)
                as net_revenue_{{ days }}d,
            {%- endfor %}
            coalesce(sum(account_days.orders) filter (where {{ order_days_ago }} < 60), 0) as orders_60d,
            coalesce(sum(account_days.orders) filter (where {{ order_days_ago }} < 730), 0) as orders_730d,
            coalesce(sum(account_days.net_revenue) filter (where {{ order_days_ago }} < 730), 0) as net_revenue_730d,
            coalesce(sum(account_days.orders) filter (where {{ order_is_of_month }}), 0) as orders_mtd,
            coalesce(sum(account_days.net_revenue) filter (where {{ order_is_of_month }}), 0) as net_revenue_mtd,
            coalesce(sum(account_days.orders) filter (where {{ order_days_ago }} < 180), 0) as orders_180d,
            coalesce(sum(account_days.net_revenue) filter (where {{ order_days_ago }} < 180), 0) as net_revenue_180d,
            coalesce(sum(account_days.orders) filter (where {{ order_days_ago }} < frequency_windows.window_days), 0)
                as orders_in_frequency_window
        from {{ order_series() }} as account_days
        where
            account_days.series_id = pairs.order_series_id
            and account_days.order_date <= pairs.as_of_date
    ) as sums

),

order_rhythm as (

    select
        order_sums.*,
        {{ days_between('order_sums.last_order_date', 'order_sums.as_of_date') }} as days_since_last_order,
        {{ days_between('order_sums.first_order_date', 'order_sums.as_of_date') }} + 1 as tenure_days,
        {{ days_between('order_sums.first_order_date', 'order_sums.last_order_date') }} as days_of_ordering,
        previous_days.order_date as previous_order_date,
        countries.country as order_country
    from order_sums
    left join lateral (
        select max(account_days.order_date) as order_date
        from {{ order_series() }} as account_days
        where
            account_days.series_id = order_sums.order_series_id
            and account_days.order_date < order_sums.last_order_date
            and account_days.orders > 0
    ) as previous_days on true
    left join {{ order_series() }} as countries
        on
            order_sums.order_series_id = countries.series_id
            and order_sums.country_date = countries.order_date

),

category_sums as (

    select
        pairs.as_of_date,
        pairs.account_id,
        sums.*
    from {{ ref('account_features_due') }} as pairs
    inner join pair_dates on pairs.as_of_date = pair_dates.as_of_date
    cross join lateral (
        select
            count(case when dated.first_order_date <= pairs.as_of_date then 1 end) as categories_total,
            count(case when dated.is_bought_365d then 1 end) as categories_365d,
            count(case when dated.is_new and dated.first_order_date >= pair_dates.month_start then 1 end)
                as new_categories_mtd,
            count(
                case
                    when dated.is_new and dated.first_order_date > {{ days_before('pairs.as_of_date', 365) }} then 1
                end
            ) as new_categories_365d,
            max(case when dated.is_new then dated.first_order_date end) as last_new_category_date
        from {{ categories_by_date('pairs') }} as dated
        having count(*) > 0
    ) as sums

),

usage_sums as (

    select
        pairs.as_of_date,
        pairs.account_id,
        sums.*
    from {{ ref('account_features_due') }} as pairs
    inner join pair_dates on pairs.as_of_date = pair_dates.as_of_date
    cross join lateral (
        select
            {%- for days in [30, 60, 90, 180] %}
            coalesce(sum(usage_days.logins) filter (where {{ usage_days_ago }} < {{ days }}), 0) as logins_{{ days }}d,
            {%- endfor %}
            {%- for days in [30, 90] %}
            coalesce(sum(usage_days.core_feature_uses) filter (where {{ usage_days_ago }} < {{ days }}), 0)
                as core_feature_uses_{{ days }}d,
            {%- endfor %}
            {%- for days in [30, 90] %}
            {{ bit_union('case when ' ~ usage_days_ago ~ ' < ' ~ days ~ ' then usage_days.core_feature_mask end') }}
                as core_feature_mask_{{ days }}d,
            count(case when {{ usage_days_ago }} < {{ days }} and usage_days.core_feature_mask is null then 1 end)
                as days_without_mask_{{ days }}d,
            {%- endfor %}
            coalesce(sum(usage_days.active_minutes) filter (where {{ usage_days_ago }} < 30), 0) as active_minutes_30d,
            coalesce(sum(usage_days.active_minutes) filter (where {{ usage_is_of_month }}), 0) as active_minutes_mtd,
            coalesce(sum(usage_days.logins) filter (where {{ usage_is_of_month }}), 0) as logins_mtd,
            count(case when {{ usage_is_of_month }} then 1 end) as active_days_mtd,
            count(case when {{ usage_days_ago }} < 30 then 1 end) as active_days_30d,
            coalesce(sum(usage_days.sessions) filter (where {{ usage_days_ago }} < 90), 0) as sessions_90d
        from {{ usage_series() }} as usage_days
        where
            usage_days.series_id = pairs.usage_series_id
            and usage_days.usage_date <= pairs.as_of_date
            and usage_days.usage_date > {{ days_before('pairs.as_of_date', 180) }}
    ) as sums

),

last_logins as (

    select
        pairs.as_of_date,
        pairs.account_id,
        logins.last_login_date
    from {{ ref('account_features_due') }} as pairs
    cross join lateral (
        select max(usage_days.usage_date) as last_login_date
        from {{ usage_series() }} as usage_days
        where
            usage_days.series_id = pairs.usage_series_id
            and usage_days.usage_date <= pairs.as_of_date
            and usage_days.logins > 0
    ) as logins

),

pair_companies as (

    select
        pairs.as_of_date,
        pairs.account_id,
        account_crosswalk.source_system || ':' || account_crosswalk.source_account_id as company_record_id
    from {{ ref('account_features_due') }} as pairs
    inner join {{ ref('int_account_crosswalk') }} as account_crosswalk
        on
            pairs.account_id = account_crosswalk.account_id
            and account_crosswalk.source_system not in ('orders', 'behavior')
            and {{ holds_on('account_crosswalk', 'pairs.as_of_date') }}

),

contact_sums as (

    select
        pair_companies.as_of_date,
        pair_companies.account_id,
        count(*) as contacts,
        count(case when ';' || contacts.buying_roles || ';' like '%;DECISION_MAKER;%' then 1 end) as decision_makers
    from pair_companies
    inner join {{ ref('int_crm_contacts') }} as contacts
        on
            pair_companies.company_record_id = contacts.company_record_id
            and {{ stands_on('contacts', 'pair_companies.as_of_date') }}
    group by pair_companies.as_of_date, pair_companies.account_id

),

ticket_sums as (

    select
        pair_companies.as_of_date,
        pair_companies.account_id,
        count(case when tickets.closed_date > pair_companies.as_of_date or tickets.closed_date is null then 1 end)
            as open_tickets,
        count(case when {{ ticket_days_ago }} < 90 then 1 end) as tickets_90d,
        count(case when {{ ticket_days_ago }} < 90 and tickets.priority = 'URGENT' then 1 end) as urgent_tickets_90d
    from pair_companies
    inner join {{ ref('int_crm_tickets') }} as tickets
        on
            pair_companies.company_record_id = tickets.company_record_id
            and {{ stands_on('tickets', 'pair_companies.as_of_date') }}
    where tickets.created_date <= pair_companies.as_of_date
    group by pair_companies.as_of_date, pair_companies.account_id

),

placed_answers as (

    select
        pair_companies.as_of_date,
        pair_companies.account_id,
        survey_answers.answer,
        row_number() over (
            partition by pair_companies.as_of_date, pair_companies.account_id
            order by survey_answers.submitted_at desc, survey_answers.record_id desc
        ) as newness
    from pair_companies
    inner join {{ ref('int_crm_survey_answers') }} as survey_answers
        on
            pair_companies.company_record_id = survey_answers.company_record_id
            and {{ stands_on('survey_answers', 'pair_companies.as_of_date') }}
    where
        survey_answers.survey_type = 'NPS'
        and survey_answers.answer is not null
        and survey_answers.submitted_date <= pair_companies.as_of_date

),

nps_answers as (

    select
        as_of_date,
        account_id,
        cast(max(case when newness = 1 then answer end) as smallint) as nps_latest,
        cast(max(case when newness = 2 then answer end) as smallint) as nps_previous
    from placed_answers
    where newness <= 2
    group by as_of_date, account_id

),

deal_stages as (

    {{ policy_rows_on_dates('deal_stages', key='deal_stage', dates='pair_dates') }}

),

deals_on_dates as (

    select
        pair_companies.as_of_date,
        pair_companies.account_id,
        deals.close_date,
        deals.amount,
        case
            when deals.is_won then 'won'
            else coalesce(deal_stages.outcome, 'open')
        end as outcome,
        case
            when coalesce(deals.currency, '{{ var("reporting_currency") }}') = '{{ var("reporting_currency") }}' then 1
            else exchange_rates.rate
        end as rate
    from pair_companies
    inner join {{ ref('int_crm_deals') }} as deals
        on
            pair_companies.company_record_id = deals.company_record_id
            and {{ stands_on('deals', 'pair_companies.as_of_date') }}
    left join deal_stages
        on
            pair_companies.as_of_date = deal_stages.as_of_date
            and deals.deal_stage = deal_stages.deal_stage
    left join {{ ref('stg_exchange_rates') }} as exchange_rates
        on
            deals.currency = exchange_rates.currency
            and pair_companies.as_of_date >= exchange_rates.effective_from
            and (pair_companies.as_of_date < exchange_rates.effective_until or exchange_rates.effective_until is null)

),

deal_sums as (

    select
        as_of_date,
        account_id,
        count(case when outcome = 'open' then 1 end) as open_deals,
        sum(case when outcome = 'open' then amount * rate else 0 end) as open_deal_amount,
        count(case when outcome = 'open' and amount is not null and rate is null then 1 end) as unpriced_deals,
        count(
            case
                when
                    outcome = 'won'
                    and close_date <= as_of_date
                    and close_date > {{ days_before('as_of_date', 365) }}
                    then 1
            end
        ) as won_deals_365d,
        count(case when outcome = 'won' and close_date <= as_of_date then 1 end) as won_deals_total,
        max(case when outcome = 'won' and close_date <= as_of_date then close_date end) as last_won_deal_date
    from deals_on_dates
    group by as_of_date, account_id

),

final as (

    select
        order_rhythm.as_of_date,
        order_rhythm.account_id,
        order_rhythm.first_order_date,
        order_rhythm.last_order_date,
        order_rhythm.days_since_last_order,
        order_rhythm.tenure_days,
        order_rhythm.order_country,
        cast(order_rhythm.orders_total as bigint) as orders_total,
        {%- for days in [30, 90, 365] %}
        cast(order_rhythm.orders_{{ days }}d as bigint) as orders_{{ days }}d,
        cast(order_rhythm.gross_sales_{{ days }}d as numeric(18, 2)) as gross_sales_{{ days }}d,
        cast(order_rhythm.returns_amount_{{ days }}d as numeric(18, 2)) as returns_amount_{{ days }}d,
        cast(order_rhythm.net_revenue_{{ days }}d as numeric(18, 2)) as net_revenue_{{ days }}d,
        {%- endfor %}
        cast(order_rhythm.net_revenue_total as numeric(18, 2)) as net_revenue_total,
        {{ orders_per_quarter(
            'order_rhythm.orders_in_frequency_window', 'order_rhythm.tenure_days', 'order_rhythm.frequency_window_days'
        ) }} as orders_per_quarter,
        {{ yearly_net_spend('order_rhythm.net_revenue_since_first_order', 'order_rhythm.tenure_days') }}
            as yearly_net_spend,
        cast(order_rhythm.gross_sales_total / order_rhythm.orders_total as numeric(18, 2)) as average_order_value,
        -- Returns of older purchases can exceed the window's sales many times; the limit is the column's. Without sales
        -- there is no rate: `least` would pass over the null and tell the limit.
        cast(
            case
                when order_rhythm.gross_sales_365d > 0
                    then least(order_rhythm.returns_amount_365d / order_rhythm.gross_sales_365d, 99999.9999)
            end as numeric(9, 4)
        ) as return_rate_365d,
        cast(order_rhythm.orders_180d as bigint) as orders_180d,
        cast(order_rhythm.orders_180d - order_rhythm.orders_90d as bigint) as orders_prior_90d,
        cast(order_rhythm.net_revenue_180d - order_rhythm.net_revenue_90d as numeric(18, 2)) as net_revenue_prior_90d,
        order_rhythm.order_days as order_days_total,
        order_rhythm.order_days_365d,
        cast(
            cast(order_rhythm.days_of_ordering as numeric(18, 4)) / nullif(order_rhythm.order_days - 1, 0)
            as numeric(12, 4)
        ) as mean_order_gap_days,
        {{ days_between('order_rhythm.previous_order_date', 'order_rhythm.last_order_date') }} as last_gap_days,
        -- By the whole gap, not by the rounded mean.
        cast(
            cast(order_rhythm.days_since_last_order as numeric(18, 4)) * (order_rhythm.order_days - 1)
            / nullif(order_rhythm.days_of_ordering, 0)
            as numeric(12, 4)
        ) as gap_ratio,
        cast(coalesce(usage_sums.logins_30d, 0) as bigint) as logins_30d,
        cast(coalesce(usage_sums.logins_60d - usage_sums.logins_30d, 0) as bigint) as logins_prior_30d,
        cast(coalesce(usage_sums.logins_90d, 0) as bigint) as logins_90d,
        cast(coalesce(usage_sums.logins_180d - usage_sums.logins_90d, 0) as bigint) as logins_prior_90d,
        cast(coalesce(usage_sums.core_feature_uses_30d, 0) as bigint) as core_feature_uses_30d,
        cast(coalesce(usage_sums.core_feature_uses_90d, 0) as bigint) as core_feature_uses_90d,
        usage_sums.active_days_30d,
        cast(coalesce(usage_sums.sessions_90d, 0) as bigint) as sessions_90d,
        {{ days_between('last_logins.last_login_date', 'order_rhythm.as_of_date') }} as days_since_last_login,
        coalesce(ticket_sums.tickets_90d, 0) as tickets_90d,
        coalesce(ticket_sums.open_tickets, 0) as open_tickets,
        coalesce(ticket_sums.urgent_tickets_90d, 0) as urgent_tickets_90d,
        nps_answers.nps_latest,
        nps_answers.nps_previous,
        coalesce(deal_sums.open_deals, 0) as open_deals,
        -- An amount without a rate is unknown, and so is the sum it belongs to.
        cast(
            case when deal_sums.unpriced_deals > 0 then null else coalesce(deal_sums.open_deal_amount, 0) end
            as numeric(18, 2)
        ) as open_deal_amount,
        coalesce(deal_sums.won_deals_365d, 0) as won_deals_365d,
        {{ days_between('deal_sums.last_won_deal_date', 'order_rhythm.as_of_date') }} as days_since_won_deal,
        -- What was sold and not ordered yet shows here; a CRM that knows no deal of the account tells nothing of it.
        deal_sums.won_deals_total - category_sums.categories_total as won_deals_beyond_categories,
        coalesce(contact_sums.contacts, 0) as contacts,
        coalesce(contact_sums.decision_makers, 0) > 0 as has_decision_maker,
        {%- for days in [30, 90] %}
        -- Of days that hold no mask nobody knows which features were used.
        case
            when usage_sums.days_without_mask_{{ days }}d = 0
                then coalesce({{ bit_count('usage_sums.core_feature_mask_' ~ days ~ 'd') }}, 0)
        end as core_features_used_{{ days }}d,
        {%- endfor %}
        coalesce(core_features_in_force.core_features, 0) as core_features_in_force,
        cast(coalesce(usage_sums.active_minutes_30d, 0) as numeric(14, 2)) as active_minutes_30d,
        usage_sums.active_days_mtd,
        cast(coalesce(usage_sums.active_minutes_mtd, 0) as numeric(14, 2)) as active_minutes_mtd,
        cast(coalesce(usage_sums.logins_mtd, 0) as bigint) as logins_mtd,
        cast(order_rhythm.orders_mtd as bigint) as orders_mtd,
        cast(order_rhythm.net_revenue_mtd as numeric(18, 2)) as net_revenue_mtd,
        cast(order_rhythm.orders_60d - order_rhythm.orders_30d as bigint) as orders_prior_30d,
        cast(order_rhythm.orders_730d - order_rhythm.orders_365d as bigint) as orders_prior_365d,
        cast(order_rhythm.net_revenue_730d - order_rhythm.net_revenue_365d as numeric(18, 2)) as net_revenue_prior_365d,
        category_sums.categories_total,
        category_sums.categories_365d,
        category_sums.new_categories_mtd,
        category_sums.new_categories_365d,
        category_sums.last_new_category_date
    from order_rhythm
    left join core_features_in_force on order_rhythm.as_of_date = core_features_in_force.as_of_date
    left join category_sums
        on
            order_rhythm.as_of_date = category_sums.as_of_date
            and order_rhythm.account_id = category_sums.account_id
    left join usage_sums
        on
            order_rhythm.as_of_date = usage_sums.as_of_date
            and order_rhythm.account_id = usage_sums.account_id
    left join last_logins
        on
            order_rhythm.as_of_date = last_logins.as_of_date
            and order_rhythm.account_id = last_logins.account_id
    left join contact_sums
        on
            order_rhythm.as_of_date = contact_sums.as_of_date
            and order_rhythm.account_id = contact_sums.account_id
    left join ticket_sums
        on
            order_rhythm.as_of_date = ticket_sums.as_of_date
            and order_rhythm.account_id = ticket_sums.account_id
    left join nps_answers
        on
            order_rhythm.as_of_date = nps_answers.as_of_date
            and order_rhythm.account_id = nps_answers.account_id
    left join deal_sums
        on
            order_rhythm.as_of_date = deal_sums.as_of_date
            and order_rhythm.account_id = deal_sums.account_id

)

select * from final
