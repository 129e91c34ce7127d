with

dates_due as (

    select * from {{ ref('int_dates_due') }}

),

account_profiles as (

    select * from {{ ref('account_profiles') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

account_kinds as (

    select * from {{ ref('account_kinds') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

account_value_tiers as (

    select * from {{ ref('account_value_tiers') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

content_themes as (

    {{ policy_rows_on_dates('content_themes', key=['company_size', 'industry_focus'], dates='dates_due') }}

),

content_formats as (

    {{ policy_rows_on_dates('content_formats', key='value_tier', dates='dates_due') }}

),

-- What is said of the industry counts before what is said of the size, and that before what is said of all.
themes as (

    select
        account_kinds.as_of_date,
        account_kinds.account_id,
        content_themes.theme,
        row_number() over (
            partition by account_kinds.as_of_date, account_kinds.account_id
            order by
                case when content_themes.industry_focus <> '*' then 0 else 1 end asc,
                case when content_themes.company_size <> '*' then 0 else 1 end asc
        ) as place
    from account_kinds
    inner join content_themes
        on
            account_kinds.as_of_date = content_themes.as_of_date
            and (content_themes.company_size = '*' or account_kinds.company_size = content_themes.company_size)
            and (content_themes.industry_focus = '*' or account_kinds.industry_focus = content_themes.industry_focus)

),

final as (

    select
        account_profiles.as_of_date,
        account_profiles.account_id,
        themes.theme,
        content_formats.format,
        themes.theme || ': ' || content_formats.format as content_tag
    from account_profiles
    left join themes
        on
            account_profiles.as_of_date = themes.as_of_date
            and account_profiles.account_id = themes.account_id
            and themes.place = 1
    left join account_value_tiers
        on
            account_profiles.as_of_date = account_value_tiers.as_of_date
            and account_profiles.account_id = account_value_tiers.account_id
    left join content_formats
        on
            account_profiles.as_of_date = content_formats.as_of_date
            and coalesce(account_value_tiers.value_tier, 'unknown') = content_formats.value_tier

)

select * from final
