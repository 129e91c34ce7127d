with

account_rfm as (

    select * from {{ ref('account_rfm') }}
    where as_of_date = {{ as_of_date() }}

),

segments as (

    {{ policy_rows('segments', key=['recency_band', 'frequency_band', 'monetary_band']) }}

),

segment_actions as (

    {{ policy_rows('segment_actions', key='segment') }}

),

final as (

    select
        {{ as_of_date() }} as as_of_date,
        account_rfm.account_id,
        segments.segment,
        segment_actions.action as segment_action
    from account_rfm
    left join segments
        on
            account_rfm.recency_band = segments.recency_band
            and account_rfm.frequency_band = segments.frequency_band
            and account_rfm.monetary_band = segments.monetary_band
    left join segment_actions on segments.segment = segment_actions.segment

)

select * from final
