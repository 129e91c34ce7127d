with

dates_due as (

    select
        as_of_date,
        {{ month_end_before('as_of_date') }} as date_before
    from {{ ref('int_dates_due') }}

),

compared as (

    {{ tiers_compared('dates_due', 'date_before') }}

),

places as (

    select
        *,
        case tier_before when 'S' then 1 when 'A' then 2 when 'B' then 3 when 'C' then 4 end as place_before,
        case tier when 'S' then 1 when 'A' then 2 when 'B' then 3 when 'C' then 4 end as place
    from compared

),

final as (

    select
        as_of_date,
        account_id,
        {{ month_end_before('as_of_date') }} as date_before,
        tier_before,
        tier,
        case
            when tier_before is null then 'new'
            when tier is null then 'gone'
            when place < place_before then 'up'
            when place > place_before then 'down'
            else 'same'
        end as direction
    from places

)

select * from final
