with

account_reach as (

    select * from {{ ref('account_reach') }}

),

account_content_tags as (

    select * from {{ ref('account_content_tags') }}
    where as_of_date = {{ as_of_date() }}

),

final as (

    select
        account_reach.as_of_date,
        account_reach.account_id,
        account_content_tags.theme,
        account_content_tags.format,
        account_content_tags.content_tag,
        case
            when account_reach.can_be_mailed then 'e-mail'
            when not account_reach.can_be_mailed then 'none'
        end as reachable_channels,
        case when account_reach.can_be_mailed is null then 'e-mail, ' else '' end
        || 'SMS, app push, WeChat' as unknown_channels
    from account_reach
    left join account_content_tags on account_reach.account_id = account_content_tags.account_id

)

select * from final
