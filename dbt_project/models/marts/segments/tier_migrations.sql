{{ config(indexes=[{'columns': ['as_of_date', 'tier_before', 'tier'], 'unique': true}]) }}

with

dates_due as (

    select
        as_of_date,
        {{ quarter_start('as_of_date') }} as quarter_start,
        {{ days_before(quarter_start('as_of_date'), 1) }} as date_before
    from {{ ref('int_dates_due') }}

),

compared as (

    {{ tiers_compared('dates_due', 'date_before') }}

),

counted as (

    select
        as_of_date,
        coalesce(tier_before, 'new') as tier_before,
        coalesce(tier, 'gone') as tier,
        count(*) as accounts
    from compared
    group by as_of_date, coalesce(tier_before, 'new'), coalesce(tier, 'gone')

),

pairs as (

    {%- for before in ['S', 'A', 'B', 'C', 'new'] %}
    {%- for after in ['S', 'A', 'B', 'C', 'gone'] if not (before == 'new' and after == 'gone') %}
    select
        '{{ before }}' as tier_before,
        '{{ after }}' as tier
    {{ 'union all' if not (before == 'new' and after == 'C') }}
    {%- endfor %}
    {%- endfor %}

),

matrix as (

    select
        dates_due.as_of_date,
        dates_due.quarter_start,
        pairs.tier_before,
        pairs.tier,
        coalesce(counted.accounts, 0) as accounts,
        sum(coalesce(counted.accounts, 0)) over (
            partition by dates_due.as_of_date, pairs.tier_before
        ) as accounts_before
    from dates_due
    cross join pairs
    left join counted
        on
            dates_due.as_of_date = counted.as_of_date
            and pairs.tier_before = counted.tier_before
            and pairs.tier = counted.tier

),

final as (

    select
        as_of_date,
        quarter_start,
        tier_before,
        tier,
        accounts,
        cast(cast(accounts as numeric) / nullif(accounts_before, 0) as numeric(9, 4)) as share
    from matrix

)

select * from final
