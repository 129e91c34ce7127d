{{ config(alias='usage_report') }}

{#- The last day of the newest month that is over on the date, and that of the month before. -#}
{%- set month_end %}{{ days_before(month_start(days_before(as_of_date(), -1)), 1) }}{% endset %}
{%- set month_end_before %}{{ days_before(month_start(month_end), 1) }}{% endset %}
{%- set of_product = ['logins', 'active_days', 'active_minutes'] %}

with

customers as (

    select * from {{ ref('published_customer_360') }}

),

account_reach as (

    select * from {{ ref('account_reach') }}

),

usage_report_audience as (

    select * from ({{ policy_rows('usage_report_audience', key='value_tier') }}) as audience
    where gets_report

),

account_holdouts as (

    select * from {{ ref('account_holdouts') }}
    where as_of_date = {{ as_of_date() }} and is_held_out

),

months as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ month_end }}

),

months_before as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ month_end_before }}

),

first_use as (

    select usage_date
    from {{ ref('int_usage_days') }}
    where usage_date <= {{ month_end }}
    order by usage_date
    limit 1

),

usage_known as (

    select count(*) > 0 as is_known from first_use

),

report as (

    select
        customers.run_id,
        customers.as_of_date,
        {{ month_start('months.as_of_date') }} as month,
        customers.account_id,
        customers.account_name,
        customers.crm_system,
        customers.crm_record_id,
        customers.owner_id,
        customers.value_tier,
        {%- for measure in of_product %}
        case when usage_known.is_known then months.{{ measure }}_mtd end as {{ measure }},
        case when usage_known.is_known then months_before.{{ measure }}_mtd end as {{ measure }}_before,
        {%- endfor %}
        case when usage_known.is_known then months.core_features_used_30d end as core_features_used,
        case when usage_known.is_known then months_before.core_features_used_30d end as core_features_used_before,
        case when not usage_known.is_known then 'no event of the product is loaded up to the month''s end' end
            as no_usage_reason,
        months.orders_mtd as orders,
        months_before.orders_mtd as orders_before,
        months.net_revenue_mtd as net_revenue,
        months_before.net_revenue_mtd as net_revenue_before,
        customers.currency,
        account_reach.contacts_mailable as recipients,
        account_reach.no_mail_reason as no_recipients_reason
    from customers
    inner join usage_report_audience on customers.value_tier = usage_report_audience.value_tier
    inner join months on customers.account_id = months.account_id
    cross join usage_known
    left join months_before on customers.account_id = months_before.account_id
    left join account_reach on customers.account_id = account_reach.account_id
    left join account_holdouts on customers.account_id = account_holdouts.account_id
    where account_holdouts.account_id is null or not usage_report_audience.leaves_out_holdout

),

-- There is nothing to send to who neither used nor ordered anything in both months.
final as (

    select * from report
    where
        orders > 0
        or orders_before > 0
        or net_revenue <> 0
        or net_revenue_before <> 0
        or active_days > 0
        or active_days_before > 0

)

select * from final
