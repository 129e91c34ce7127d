{{ config(materialized='view') }}

with

account_features as (

    select
        as_of_date,
        account_id
    from {{ ref('account_features') }}

),

final as (

    select
        account_features.as_of_date,
        account_features.account_id,
        categories.product_category,
        categories.first_order_date
    from account_features
    left join {{ ref('int_account_spans') }} as spans
        on
            account_features.account_id = spans.account_id
            and {{ holds_on('spans', 'account_features.as_of_date') }}
    inner join {{ series_categories() }} as categories
        on
            coalesce(spans.order_series_id, account_features.account_id) = categories.series_id
            and account_features.as_of_date >= categories.first_order_date

)

select * from final
