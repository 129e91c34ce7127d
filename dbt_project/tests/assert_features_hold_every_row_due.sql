-- A failure means that account_features lacks a row that this build was to make, or holds one of the run's date that it
-- was not: account_features_due and account_features no longer speak of the same accounts and dates.
with

due as (

    select
        as_of_date,
        account_id
    from {{ ref('account_features_due') }}

),

missing as (

    select
        due.as_of_date,
        due.account_id
    from due
    left join {{ ref('account_features') }} as features
        on
            due.as_of_date = features.as_of_date
            and due.account_id = features.account_id
    where features.account_id is null

),

uncalled as (

    select
        features.as_of_date,
        features.account_id
    from {{ ref('account_features') }} as features
    left join due
        on
            features.as_of_date = due.as_of_date
            and features.account_id = due.account_id
    where
        features.as_of_date = {{ as_of_date() }}
        and due.account_id is null

),

final as (

    select * from missing
    union all
    select * from uncalled

)

select * from final
