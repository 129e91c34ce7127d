with

dates_due as (

    select * from {{ ref('int_dates_due') }}

),

account_profiles as (

    select * from {{ ref('account_profiles') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date in (select dates_due.as_of_date from dates_due)

),

thresholds as (

    {{ thresholds_on_dates(['enterprise_yearly_spend', 'enterprise_contacts', 'small_b_order_value'], 'dates_due') }}

),

company_sizes as (

    {{ policy_rows_on_dates('company_sizes', key='crm_size', dates='dates_due') }}

),

industry_focuses as (

    {{ policy_rows_on_dates('industry_focuses', key='industry', dates='dates_due') }}

),

service_focuses as (

    {{ policy_rows_on_dates('service_focuses', key=['kind', 'value'], dates='dates_due') }}

),

company_versions as (

    select
        dates_due.as_of_date,
        versions.crm_system,
        versions.source_record_id,
        versions.record_id,
        versions.account_size,
        versions.valid_from,
        versions.is_archived,
        row_number() over (
            partition by dates_due.as_of_date, versions.record_id
            order by versions.valid_from desc, versions.load_seq desc
        ) as newness
    from dates_due
    inner join {{ ref('int_crm_companies') }} as versions
        on versions.valid_from < {{ day_start(days_before('dates_due.as_of_date', -1)) }}

),

-- Of several companies of an account the one speaks that stands for it most directly, of those that tell a size.
sizes as (

    select
        company_versions.as_of_date,
        account_crosswalk.account_id,
        company_versions.account_size,
        row_number() over (
            partition by company_versions.as_of_date, account_crosswalk.account_id
            order by
                {{ directness('account_crosswalk.matched_by') }} asc,
                company_versions.valid_from desc,
                company_versions.record_id asc
        ) as place_in_account
    from company_versions
    inner join {{ ref('int_account_crosswalk') }} as account_crosswalk
        on
            company_versions.crm_system = account_crosswalk.source_system
            and company_versions.source_record_id = account_crosswalk.source_account_id
            and {{ holds_on('account_crosswalk', 'company_versions.as_of_date') }}
    where
        company_versions.newness = 1
        and not company_versions.is_archived
        and company_versions.account_size is not null

),

sized as (

    select
        account_profiles.as_of_date,
        account_profiles.account_id,
        account_profiles.industry,
        sizes.account_size,
        company_sizes.company_size as told_size,
        account_features.average_order_value,
        thresholds.small_b_order_value,
        case
            when account_features.yearly_net_spend >= thresholds.enterprise_yearly_spend then 'enterprise'
            when account_features.contacts >= thresholds.enterprise_contacts then 'enterprise'
            when account_features.account_id is not null then 'sme'
        end as size_by_policy,
        industry_focuses.industry_focus
    from account_profiles
    left join account_features
        on
            account_profiles.as_of_date = account_features.as_of_date
            and account_profiles.account_id = account_features.account_id
    left join sizes
        on
            account_profiles.as_of_date = sizes.as_of_date
            and account_profiles.account_id = sizes.account_id
            and sizes.place_in_account = 1
    left join company_sizes
        on
            sizes.as_of_date = company_sizes.as_of_date
            and lower(sizes.account_size) = company_sizes.crm_size
    left join industry_focuses
        on
            account_profiles.as_of_date = industry_focuses.as_of_date
            and lower(account_profiles.industry) = industry_focuses.industry
    left join thresholds on account_profiles.as_of_date = thresholds.as_of_date

),

kinds as (

    select
        *,
        coalesce(told_size, size_by_policy) as company_size
    from sized

),

final as (

    select
        kinds.as_of_date,
        kinds.account_id,
        kinds.company_size,
        kinds.industry_focus,
        kinds.company_size = 'sme' and kinds.average_order_value < kinds.small_b_order_value as is_small_b_large_c,
        case
            when size_focuses.focus is not null and trade_focuses.focus is not null
                then size_focuses.focus || '; ' || trade_focuses.focus
            else coalesce(size_focuses.focus, trade_focuses.focus)
        end as service_focus,
        case
            when kinds.told_size is not null then 'size as the CRM says: ' || kinds.account_size
            when kinds.size_by_policy is not null and kinds.account_size is not null
                then 'size by spend and contacts: no policy for the CRM''s ' || kinds.account_size
            when kinds.size_by_policy is not null then 'size by spend and contacts: the CRM tells none'
            when kinds.account_size is not null
                then 'size not known: no policy for the CRM''s ' || kinds.account_size || ', no order'
            else 'size not known: the CRM tells none, no order'
        end
        || case
            when kinds.industry is null then '; no industry in the CRM'
            when kinds.industry_focus is null then '; no focus for the industry ' || kinds.industry
            else '; industry as the CRM says: ' || kinds.industry
        end as kind_reason
    from kinds
    left join service_focuses as size_focuses
        on
            kinds.as_of_date = size_focuses.as_of_date
            and size_focuses.kind = 'company_size'
            and kinds.company_size = size_focuses.value
    left join service_focuses as trade_focuses
        on
            kinds.as_of_date = trade_focuses.as_of_date
            and trade_focuses.kind = 'industry_focus'
            and kinds.industry_focus = trade_focuses.value

)

select * from final
