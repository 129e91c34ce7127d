-- A failure means that customer_360 does not carry the scores of the run: an account that has ordered is without a
-- probability although the run was scored, one has a probability although it was not, or one has no band or reason.
with

customers as (

    select * from {{ ref('published_customer_360') }}

),

scored_runs as (

    select count(*) as runs
    from {{ source('ml', 'runs') }}
    where run_id = '{{ var("run_id") }}' and model = 'churn' and status = 'scored'

),

final as (

    select
        customers.account_id,
        customers.has_ordered,
        customers.churn_probability,
        customers.churn_risk,
        scored_runs.runs
    from customers
    cross join scored_runs
    where
        (customers.churn_probability is not null) <> (customers.has_ordered and scored_runs.runs = 1)
        or (customers.churn_probability is null) <> (customers.churn_risk is null)
        or (customers.churn_probability is null) <> (customers.churn_rank is null)
        or (customers.churn_probability is null) <> (customers.churn_reason_3 is null)
        or (customers.churn_probability is null) <> (customers.churn_model_id is null)

)

select * from final
