{{ config(alias='lists') }}

with

operating_list as (

    select * from {{ ref('published_operating_list') }}

),

operating_lists as (

    {{ policy_rows('operating_lists', key='list') }}

),

sums as (

    select
        list,
        count(*) as list_rows,
        sum(amount) as amount,
        case
            when count(distinct amount_is) > 1
                then 'added up of several kinds: ' || {{ joined_texts('amount_is', '; ') }}
            else min(amount_is)
        end as amount_is,
        min(due_date) as first_due_date,
        max(due_date) as last_due_date,
        count(case when not can_be_mailed then 1 end) as rows_not_by_mail
    from operating_list
    group by list

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        operating_lists.list,
        operating_lists.priority,
        cast(coalesce(sums.list_rows, 0) as bigint) as list_rows,
        cast(sums.amount as numeric(18, 2)) as amount,
        coalesce(sums.amount_is, operating_lists.amount_is) as amount_is,
        '{{ var("reporting_currency") }}' as currency,
        sums.first_due_date,
        sums.last_due_date,
        cast(coalesce(sums.rows_not_by_mail, 0) as bigint) as rows_not_by_mail,
        operating_lists.due_days,
        operating_lists.daily_capacity,
        operating_lists.leaves_out_holdout,
        'operating_lists' as policy,
        operating_lists.effective_from as policy_effective_from
    from operating_lists
    left join sums on operating_lists.list = sums.list

)

select * from final
