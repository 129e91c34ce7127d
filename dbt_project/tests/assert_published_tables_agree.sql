-- A failure means that the published tables contradict each other: the accounts or the revenue of the tiers are not
-- those of customer_360, the company's counts are not, or the history lacks an account.
with

customers as (

    select
        count(*) as accounts,
        count(case when has_ordered then 1 end) as accounts_ordered,
        count(tier) as accounts_tiered,
        coalesce(sum(case when has_ordered then net_revenue_365d end), 0) as net_revenue_365d
    from {{ ref('published_customer_360') }}

),

tiers as (

    select
        sum(accounts) as accounts,
        sum(net_revenue_365d) as net_revenue_365d
    from {{ ref('published_tier_summary') }}

),

company as (

    select * from {{ ref('published_company_summary') }}

),

history as (

    select count(*) as accounts from {{ ref('published_account_tiers') }}

),

final as (

    select
        customers.accounts,
        customers.accounts_ordered,
        tiers.accounts as accounts_of_tiers,
        company.accounts as accounts_of_company,
        history.accounts as accounts_of_history
    from customers
    cross join tiers
    cross join company
    cross join history
    where
        customers.accounts_ordered <> customers.accounts_tiered
        or customers.accounts_ordered <> tiers.accounts
        or customers.net_revenue_365d <> tiers.net_revenue_365d
        or customers.accounts <> company.accounts
        or customers.accounts_ordered <> company.accounts_ordered
        or customers.accounts_ordered <> history.accounts

)

select * from final
