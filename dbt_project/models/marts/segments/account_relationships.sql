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

    {{ thresholds_on_dates(
        ['paying_window_days', 'repeat_orders', 'loyal_nps', 'loyal_signs', 'loyal_window_days'], 'dates_due'
    ) }}

),

relationship_actions as (

    {{ policy_rows_on_dates('relationship_actions', key='stage', dates='dates_due') }}

),

deal_stages as (

    {{ policy_rows_on_dates('deal_stages', key='deal_stage', dates='dates_due') }}

),

-- The keys by which records name an account, and when each does.
account_keys as (

    select
        mappings.account_id,
        mappings.valid_from_date,
        mappings.valid_until_date,
        {{ account_key('mappings') }} as account_key
    from {{ ref('int_account_crosswalk') }} as mappings
    where
        mappings.source_system <> 'behavior'
        and not mappings.is_internal

),

contract_sums as (

    select
        dates_due.as_of_date,
        account_keys.account_id,
        max(
            case
                when
                    {{ contract_start('contracts') }} <= dates_due.as_of_date
                    and (contracts.ends_on >= dates_due.as_of_date or contracts.ends_on is null)
                    then 1
                else 0
            end
        ) = 1 as is_in_term,
        min({{ contract_start('contracts') }}) <= dates_due.as_of_date as has_begun,
        max(case when {{ contract_start('contracts') }} <= dates_due.as_of_date then contracts.ends_on end)
            as last_end_date,
        max(case when contracts.renews_contract_id is not null then 1 else 0 end) = 1
        or min({{ contract_start('contracts') }}) < max({{ contract_start('contracts') }}) as has_renewed
    from {{ ref('stg_contracts') }} as contracts
    inner join account_keys on contracts.account_key = account_keys.account_key
    inner join dates_due
        on
            {{ stands_on('contracts', 'dates_due.as_of_date') }}
            and {{ holds_on('account_keys', 'dates_due.as_of_date') }}
    where {{ local_date('contracts.signed_at') }} <= dates_due.as_of_date
    group by dates_due.as_of_date, account_keys.account_id

),

-- Of the CRMs files alone say which opportunity is a trial.
trials as (

    select distinct
        dates_due.as_of_date,
        account_keys.account_id
    from {{ ref('stg_files_opportunities') }} as opportunities
    inner join account_keys on 'files:' || opportunities.company_record_id = account_keys.account_key
    inner join dates_due
        on
            {{ stands_on('opportunities', 'dates_due.as_of_date') }}
            and {{ holds_on('account_keys', 'dates_due.as_of_date') }}
    left join deal_stages
        on
            dates_due.as_of_date = deal_stages.as_of_date
            and opportunities.deal_stage = deal_stages.deal_stage
    where
        opportunities.opportunity_type = 'trial'
        and coalesce(deal_stages.outcome, 'open') <> 'lost'

),

referral_sums as (

    select
        dates_due.as_of_date,
        account_keys.account_id,
        count(*) as referrals
    from {{ ref('stg_referrals') }} as referrals
    inner join account_keys on referrals.account_key = account_keys.account_key
    inner join dates_due
        on
            {{ stands_on('referrals', 'dates_due.as_of_date') }}
            and {{ holds_on('account_keys', 'dates_due.as_of_date') }}
    inner join thresholds on dates_due.as_of_date = thresholds.as_of_date
    where
        referrals.referred_date <= dates_due.as_of_date
        and {{ days_between('referrals.referred_date', 'dates_due.as_of_date') }} < thresholds.loyal_window_days
    group by dates_due.as_of_date, account_keys.account_id

),

nps_sums as (

    select
        dates_due.as_of_date,
        account_keys.account_id,
        count(*) as nps_answers,
        cast(
            100.0 * (
                count(case when answers.answer >= 9 then 1 end) - count(case when answers.answer <= 6 then 1 end)
            ) / count(*) as numeric(9, 4)
        ) as account_nps
    from {{ ref('int_crm_survey_answers') }} as answers
    inner join account_keys on answers.company_record_id = account_keys.account_key
    inner join dates_due
        on
            {{ stands_on('answers', 'dates_due.as_of_date') }}
            and {{ holds_on('account_keys', 'dates_due.as_of_date') }}
    inner join thresholds on dates_due.as_of_date = thresholds.as_of_date
    where
        answers.survey_type = 'NPS'
        and answers.answer is not null
        and answers.submitted_date <= dates_due.as_of_date
        and {{ days_between('answers.submitted_date', 'dates_due.as_of_date') }} < thresholds.loyal_window_days
    group by dates_due.as_of_date, account_keys.account_id

),

signs as (

    select
        account_profiles.as_of_date,
        account_profiles.account_id,
        coalesce(contract_sums.has_begun, false) as has_contract,
        account_features.account_id is not null or coalesce(contract_sums.has_begun, false) as has_bought,
        coalesce(contract_sums.is_in_term, false) as is_in_term,
        -- Orders count where no contract does: without one, or after the last has ended.
        coalesce(
            account_features.days_since_last_order < thresholds.paying_window_days
            and (
                account_features.last_order_date > contract_sums.last_end_date
                or not coalesce(contract_sums.has_begun, false)
            ),
            false
        ) as is_in_window,
        trials.account_id is not null as has_trial,
        coalesce(contract_sums.has_renewed, false)
        or coalesce(account_features.orders_total >= thresholds.repeat_orders, false) as pays_again,
        referral_sums.referrals is not null as refers,
        nps_sums.account_nps,
        nps_sums.nps_answers,
        coalesce(nps_sums.account_nps >= thresholds.loyal_nps, false) as is_promoter,
        thresholds.loyal_signs
    from account_profiles
    left join account_features
        on
            account_profiles.as_of_date = account_features.as_of_date
            and account_profiles.account_id = account_features.account_id
    left join contract_sums
        on
            account_profiles.as_of_date = contract_sums.as_of_date
            and account_profiles.account_id = contract_sums.account_id
    left join trials
        on
            account_profiles.as_of_date = trials.as_of_date
            and account_profiles.account_id = trials.account_id
    left join referral_sums
        on
            account_profiles.as_of_date = referral_sums.as_of_date
            and account_profiles.account_id = referral_sums.account_id
    left join nps_sums
        on
            account_profiles.as_of_date = nps_sums.as_of_date
            and account_profiles.account_id = nps_sums.account_id
    left join thresholds on account_profiles.as_of_date = thresholds.as_of_date

),

staged as (

    select
        *,
        case
            when not has_bought and has_trial then 'trial'
            when not has_bought then 'prospect'
            when not is_in_term and not is_in_window then 'lapsed'
            when
                pays_again
                and 1 + case when refers then 1 else 0 end + case when is_promoter then 1 else 0 end >= loyal_signs
                then 'loyal'
            else 'paying'
        end as relationship_stage
    from signs

),

final as (

    select
        staged.as_of_date,
        staged.account_id,
        staged.relationship_stage,
        relationship_actions.action as relationship_action,
        case
            when staged.relationship_stage = 'prospect' then 'no purchase; the CRM tells of no trial that is not lost'
            when staged.relationship_stage = 'trial' then 'no purchase; a trial that is not lost'
            when staged.relationship_stage = 'lapsed' and staged.has_contract
                then 'no contract in its term, no order in the window since the last ended'
            when staged.relationship_stage = 'lapsed' then 'no contract known; no order in the window'
            else
                case
                    when staged.is_in_term then 'contract in its term'
                    when staged.has_contract then 'ordered in the window since the last contract ended'
                    else 'no contract known; ordered in the window'
                end
                || case when staged.pays_again then '; pays again' else '; has not paid again' end
                || case when staged.refers then '; refers' else '; no referral known' end
                || case
                    when staged.nps_answers is null then '; no NPS answer'
                    else '; account NPS ' || {{ as_text('cast(round(staged.account_nps) as integer)') }}
                end
        end as relationship_reason,
        staged.account_nps,
        staged.nps_answers
    from staged
    left join relationship_actions
        on
            staged.as_of_date = relationship_actions.as_of_date
            and staged.relationship_stage = relationship_actions.stage

)

select * from final
