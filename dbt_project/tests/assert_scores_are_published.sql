-- A failure means that customer_360 does not carry the scores of the run: an account that a model of its form of churn
-- speaks of is without a probability although the run was scored by it, one has a probability although it was not, or
-- one has no band or reason. The churn model speaks of who has ordered and pays by no contract, the lapse model of
-- whose contract is due. Or it means that somebody is scored who has no row there, or whose probability of upsell or
-- repurchase is another one there than in account_scores.
with

customers as (

    select * from {{ ref('published_customer_360') }}

),

held_accounts as (

    select * from {{ ref('lapse_features') }}
    where as_of_date = {{ as_of_date() }}

),

scored_runs as (

    select
        count(case when model = 'churn' then 1 end) as churn_runs,
        count(case when model = 'lapse' then 1 end) as lapse_runs
    from {{ source('ml', 'runs') }}
    where run_id = '{{ var("run_id") }}' and status = 'scored'

),

spoken_of as (

    select
        customers.*,
        case
            when held_accounts.account_id is not null then held_accounts.is_due and scored_runs.lapse_runs = 1
            else customers.has_ordered and scored_runs.churn_runs = 1
        end as has_model
    from customers
    cross join scored_runs
    left join held_accounts on customers.account_id = held_accounts.account_id

),

account_scores as (

    select * from {{ ref('published_account_scores') }}

),

final as (

    -- A trial may be a user of the product whom nobody knows as an account.
    select
        account_scores.account_id,
        account_scores.model,
        account_scores.probability
    from account_scores
    left join customers on account_scores.account_id = customers.account_id
    where
        account_scores.model <> 'trial'
        and (
            customers.account_id is null
            or (
                account_scores.model = 'upsell'
                and coalesce(customers.upsell_probability, -1) <> account_scores.probability
            )
            or (
                account_scores.model = 'repurchase'
                and coalesce(customers.repurchase_probability, -1) <> account_scores.probability
            )
        )
    union all
    select
        account_id,
        churn_definition,
        churn_probability
    from spoken_of
    where
        (churn_probability is not null) <> has_model
        or (churn_probability is null) <> (churn_risk is null)
        or (churn_probability is null) <> (churn_rank is null)
        or (churn_probability is null) <> (churn_reason_3 is null)
        or (churn_probability is null) <> (churn_model_id is null)

)

select * from final
