{{ config(materialized='table', indexes=[{'columns': ['as_of_date', 'account_key'], 'unique': true}]) }}

with

final as (

    select
        growth_dates.as_of_date,
        case when crosswalk.source_system = 'orders' then '' else crosswalk.source_system || ':' end
        || crosswalk.source_account_id as account_key,
        crosswalk.source_system,
        crosswalk.source_account_id,
        crosswalk.account_id
    from {{ ref('growth_dates') }} as growth_dates
    inner join {{ ref('int_account_crosswalk') }} as crosswalk
        on {{ holds_on('crosswalk', 'growth_dates.as_of_date') }}
    where not crosswalk.is_internal

)

select * from final
