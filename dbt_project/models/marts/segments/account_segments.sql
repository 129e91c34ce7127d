with

dates_due as (

    select * from {{ ref('int_dates_due') }}

),

account_rfm as (

    select * from {{ ref('account_rfm') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

segments as (

    {{ policy_rows_on_dates(
        'segments', key=['recency_band', 'frequency_band', 'monetary_band'], dates='dates_due'
    ) }}

),

segment_actions as (

    {{ policy_rows_on_dates('segment_actions', key='segment', dates='dates_due') }}

),

final as (

    select
        account_rfm.as_of_date,
        account_rfm.account_id,
        segments.segment,
        segment_actions.action as segment_action
    from account_rfm
    left join segments
        on
            account_rfm.as_of_date = segments.as_of_date
            and account_rfm.recency_band = segments.recency_band
            and account_rfm.frequency_band = segments.frequency_band
            and account_rfm.monetary_band = segments.monetary_band
    left join segment_actions
        on
            segments.as_of_date = segment_actions.as_of_date
            and segments.segment = segment_actions.segment

)

select * from final
