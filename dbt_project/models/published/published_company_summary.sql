{{ config(alias='company_summary') }}

with

company as (

    select * from {{ source('audit', 'company') }}

),

customers as (

    select * from {{ ref('published_customer_360') }}

),

account_days as (

    select * from {{ ref('int_account_days') }}
    where order_date <= {{ as_of_date() }}

),

unattributed_days as (

    select * from {{ ref('int_unattributed_days') }}
    where order_date <= {{ as_of_date() }}

),

customer_sums as (

    select
        count(*) as accounts,
        count(case when has_ordered then 1 end) as accounts_ordered,
        count(case when is_dormant then 1 end) as accounts_dormant
    from customers

),

attributed_sums as (

    select
        coalesce(sum(order_lines), 0) as order_lines,
        coalesce(sum(non_product_lines), 0) as non_product_lines,
        coalesce(sum(net_revenue), 0) as net_revenue
    from account_days

),

-- What the company's own and test accounts ordered is in the company's totals, and in no account.
excluded_customers as (

    select
        mappings.account_id,
        mappings.source_account_id as customer_id
    from {{ ref('int_account_crosswalk') }} as mappings
    where
        mappings.source_system = 'orders'
        and mappings.is_internal
        and {{ holds_on('mappings', as_of_date()) }}

),

excluded_sums as (

    select
        count(distinct case when account_days.orders > 0 then excluded_customers.account_id end) as accounts,
        coalesce(sum(account_days.order_lines), 0) as order_lines,
        coalesce(sum(account_days.net_revenue), 0) as net_revenue
    from excluded_customers
    inner join account_days on excluded_customers.customer_id = account_days.account_id

),

unattributed_sums as (

    select
        coalesce(sum(order_lines), 0) as order_lines,
        coalesce(sum(non_product_lines), 0) as non_product_lines,
        coalesce(sum(net_revenue), 0) as net_revenue
    from unattributed_days

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        company.company_name,
        '{{ var("reporting_currency") }}' as currency,
        customer_sums.accounts,
        customer_sums.accounts_ordered,
        customer_sums.accounts_dormant,
        cast(attributed_sums.order_lines + unattributed_sums.order_lines as bigint) as order_lines,
        cast(unattributed_sums.order_lines as bigint) as order_lines_unattributed,
        cast(
            attributed_sums.non_product_lines + unattributed_sums.non_product_lines as bigint
        ) as order_lines_non_product,
        cast(attributed_sums.net_revenue + unattributed_sums.net_revenue as numeric(18, 2)) as net_revenue_total,
        cast(unattributed_sums.net_revenue as numeric(18, 2)) as net_revenue_unattributed,
        excluded_sums.accounts as accounts_excluded,
        cast(excluded_sums.order_lines as bigint) as order_lines_excluded,
        cast(excluded_sums.net_revenue as numeric(18, 2)) as net_revenue_excluded
    from company
    cross join customer_sums
    cross join attributed_sums
    cross join unattributed_sums
    cross join excluded_sums

)

select * from final
