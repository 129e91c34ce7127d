with

dates_due as (

    select * from {{ ref('int_dates_due') }}

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

bands as (

    {{ policy_rows_on_dates('rfm_bands', key='metric', dates='dates_due') }}

),

scores as (

    select
        as_of_date,
        account_id,
        days_since_last_order,
        orders_per_quarter,
        yearly_net_spend,
        ntile(5) over (
            partition by as_of_date
            order by days_since_last_order desc, orders_per_quarter asc, yearly_net_spend asc, account_id asc
        ) as recency_score,
        ntile(5) over (
            partition by as_of_date
            order by orders_per_quarter asc, yearly_net_spend asc, days_since_last_order desc, account_id asc
        ) as frequency_score,
        ntile(5) over (
            partition by as_of_date
            order by yearly_net_spend asc, orders_per_quarter asc, days_since_last_order desc, account_id asc
        ) as monetary_score
    from account_features

),

final as (

    select
        scores.as_of_date,
        scores.account_id,
        recency_bands.band as recency_band,
        frequency_bands.band as frequency_band,
        monetary_bands.band as monetary_band,
        cast(scores.recency_score as smallint) as recency_score,
        cast(scores.frequency_score as smallint) as frequency_score,
        cast(scores.monetary_score as smallint) as monetary_score,
        {{ as_text('scores.recency_score') }}
        || {{ as_text('scores.frequency_score') }}
        || {{ as_text('scores.monetary_score') }} as rfm_score
    from scores
    {{ join_band('recency', 'scores', 'days_since_last_order') }}
    {{ join_band('frequency', 'scores', 'orders_per_quarter') }}
    {{ join_band('monetary', 'scores', 'yearly_net_spend') }}

)

select * from final
