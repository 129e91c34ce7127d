{{ config(alias='recommendations') }}

{%- set list_places = 10 %}

with

account_profiles as (

    select
        account_id,
        industry
    from {{ ref('account_profiles') }}
    where as_of_date = {{ as_of_date() }}

),

fit as (

    select
        fits.fit_id,
        fits.fitted_as_of
    from {{ source('ml', 'recommendation_runs') }} as runs
    inner join {{ source('ml', 'recommendation_fits') }} as fits on runs.fit_id = fits.fit_id
    where runs.run_id = '{{ var("run_id") }}'

),

own_lists as (

    select recommendations.*
    from {{ source('ml', 'recommendations') }} as recommendations
    inner join fit on recommendations.fit_id = fit.fit_id

),

popular_products as (

    select popular.*
    from {{ source('ml', 'popular_products') }} as popular
    inner join fit on popular.fit_id = fit.fit_id

),

accounts_with_lists as (

    select distinct account_id from own_lists

),

industries_with_lists as (

    select distinct industry from popular_products

),

-- Accounts without purchases up to the fit: what is popular in their industry, or with all where that has no list.
cold_accounts as (

    select
        account_profiles.account_id,
        coalesce(industries_with_lists.industry, '') as industry
    from account_profiles
    left join accounts_with_lists on account_profiles.account_id = accounts_with_lists.account_id
    left join industries_with_lists on account_profiles.industry = industries_with_lists.industry
    where accounts_with_lists.account_id is null

),

listed as (

    select
        own_lists.account_id,
        own_lists.place,
        own_lists.product_id,
        own_lists.score,
        own_lists.reason,
        own_lists.method as chosen_by,
        false as is_cold
    from own_lists
    inner join account_profiles on own_lists.account_id = account_profiles.account_id
    union all
    select
        cold_accounts.account_id,
        popular_products.place,
        popular_products.product_id,
        popular_products.score,
        popular_products.reason,
        'popularity' as chosen_by,
        true as is_cold
    from cold_accounts
    inner join popular_products on cold_accounts.industry = popular_products.industry

),

-- What was bought since the fit. Both ends are instants of the raw column, so that its index finds the few lines.
bought_since as (

    select distinct
        account_crosswalk.account_id,
        order_lines.product_id
    from {{ ref('stg_order_lines') }} as order_lines
    inner join {{ ref('int_account_crosswalk') }} as account_crosswalk
        on
            account_crosswalk.source_system = 'orders'
            and order_lines.customer_id = account_crosswalk.source_account_id
            and {{ holds_on('account_crosswalk', as_of_date()) }}
    where
        order_lines.ordered_at >= (select {{ day_start(days_before('fit.fitted_as_of', -1)) }} from fit)
        and order_lines.ordered_at < {{ as_of_end() }}
        and order_lines.line_type = 'sale'

),

products as (

    select
        versions.product_id,
        versions.product_name,
        versions.product_category,
        versions.is_archived
    from {{ ref('stg_products') }} as versions
    where {{ holds_on('versions', as_of_date()) }}

),

placed as (

    select
        listed.account_id,
        listed.product_id,
        products.product_name,
        products.product_category,
        listed.score,
        listed.reason,
        listed.chosen_by,
        listed.is_cold,
        row_number() over (partition by listed.account_id order by listed.place) as place
    from listed
    left join bought_since
        on
            listed.account_id = bought_since.account_id
            and listed.product_id = bought_since.product_id
    left join products on listed.product_id = products.product_id
    where
        bought_since.product_id is null
        and not coalesce(products.is_archived, false)

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        placed.account_id,
        cast(placed.place as smallint) as place,
        placed.product_id,
        placed.product_name,
        placed.product_category,
        cast(placed.score as numeric(18, 6)) as score,
        placed.reason,
        placed.chosen_by as method,
        placed.is_cold,
        fit.fitted_as_of
    from placed
    cross join fit
    where placed.place <= {{ list_places }}

)

select * from final
