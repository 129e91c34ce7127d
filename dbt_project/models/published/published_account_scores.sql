{{ config(alias='account_scores') }}

with

scores as (

    select * from {{ source('ml', 'scores') }}
    where run_id = '{{ var("run_id") }}'

),

scored_runs as (

    select * from {{ source('ml', 'runs') }}
    where run_id = '{{ var("run_id") }}' and status = 'scored'

),

final as (

    select
        scores.run_id,
        {{ as_of_date() }} as as_of_date,
        scores.account_id,
        scores.model,
        scored_runs.definition,
        scored_runs.horizon_days,
        scores.probability,
        scores.score_rank,
        scored_runs.accounts as accounts_scored,
        scored_runs.base_rate,
        scores.expected_value,
        case when scores.expected_value is not null then '{{ var("reporting_currency") }}' end as currency,
        scores.next_best,
        scores.reason_1,
        scores.reason_2,
        scores.reason_3,
        scores.model_id,
        scores.next_best_probability
    from scores
    inner join scored_runs on scores.model = scored_runs.model

)

select * from final
