{{ config(alias='operating_list') }}

{%- set trial_offer_days = 'cast(' ~ threshold('trial_offer_days', 'profile_rules') ~ ' as integer)' %}

with

customers as (

    select * from {{ ref('published_customer_360') }}

),

contracts as (

    select
        *,
        {{ days_between('sent_date', as_of_date()) }} as days_waiting
    from {{ ref('account_contracts') }}

),

referral_rewards as (

    select * from {{ ref('referral_rewards') }}

),

prospect_fit as (

    select * from {{ ref('prospect_fit') }}

),

account_features as (

    select * from {{ ref('account_features') }}
    where as_of_date = {{ as_of_date() }}

),

missing_roles as (

    select
        account_id,
        {{ joined_texts("role || ' (' || missing_message || ', ' || missing_format || ')'", ', ') }} as missing
    from {{ ref('account_decision_chains') }}
    where not is_covered
    group by account_id

),

account_holdouts as (

    select * from {{ ref('account_holdouts') }}
    where as_of_date = {{ as_of_date() }} and is_held_out

),

operating_lists as (

    {{ policy_rows('operating_lists', key='list') }}

),

list_routing as (

    {{ policy_rows('list_routing', key='value_tier') }}

),

profile_rules as (

    {{ policy_rows('profile_rules', key='name') }}

),

-- What is usual: the mean of those that the churn list is about, by what churn means for them.
base_rates as (

    select
        churn_definition,
        avg(churn_probability) as base_rate
    from customers
    where not is_dormant or churn_definition = 'contract lapse'
    group by churn_definition

),

lapse_features as (

    select * from {{ ref('lapse_features') }}
    where as_of_date = {{ as_of_date() }}

),

at_risk as (

    select
        customers.*,
        round(100 * customers.churn_probability, 1) || ' %, '
        || round(customers.churn_probability / nullif(base_rates.base_rate, 0), 1) || ' times the mean of '
        || round(100 * base_rates.base_rate, 1) || ' %' as risk_words,
        case customers.churn_definition
            when 'contract lapse' then 'probability that its contract lapses'
            else 'probability of no further order'
        end as probability_words,
        greatest(customers.net_revenue_365d, 0) as revenue_at_stake,
        -- What a lapse ends is the contract; where its worth is not known, what was bought under it.
        coalesce(lapse_features.yearly_contract_value, greatest(customers.net_revenue_365d, 0)) as worth
    from customers
    inner join base_rates on customers.churn_definition = base_rates.churn_definition
    left join lapse_features on customers.account_id = lapse_features.account_id
    where customers.churn_risk = 'high'

),

churn_risk_entries as (

    select
        'churn risk' as list,
        account_id,
        'account' as subject,
        account_id as subject_id,
        upper(substring(probability_words, 1, 1)) || substring(probability_words, 2) || ': ' || risk_words || '. '
        || coalesce(churn_reason_1, 'No reason is known') || '.' as reason,
        churn_probability * worth as amount,
        cast(null as date) as until_date,
        cast(null as numeric) as place_by
    from at_risk
    where
        -- Under a contract an account is a customer, though it has not ordered for long.
        not is_dormant or churn_definition = 'contract lapse'

),

-- Where no model tells a probability the warning rules speak alone, and say so.
churn_rule_entries as (

    select
        'churn risk' as list,
        account_id,
        'account' as subject,
        account_id as subject_id,
        'By warning rules, no model serves (' || churn_told_by_reason || '): ' || churn_warnings || '.'
        || coalesce(' Not known: ' || nullif(churn_warnings_unknown, 'none') || '.', '') as reason,
        greatest(net_revenue_365d, 0) as amount,
        cast(null as date) as until_date,
        cast(null as numeric) as place_by
    from customers
    where
        churn_told_by = 'rules'
        and churn_warning_severity = 'high'
        and (not is_dormant or churn_definition = 'contract lapse')

),

executive_visit_entries as (

    select
        'executive visit' as list,
        account_id,
        'account' as subject,
        account_id as subject_id,
        'Tier ' || tier || ', value tier ' || coalesce(value_tier, 'not known') || ': '
        || probability_words || ' ' || risk_words || '; of ' || revenue_at_stake || ' ' || currency
        || ' of net revenue in the last 365 days ' || round(churn_probability * revenue_at_stake, 2) || ' at stake. '
        || coalesce(churn_reason_1, 'No reason is known') || '.' as reason,
        revenue_at_stake as amount,
        cast(null as date) as until_date,
        cast(null as numeric) as place_by
    from at_risk
    where
        next_action = 'executive visit'

),

-- What won back they may bring: the newest year with revenue, else the mean of their years.
win_back_customers as (

    select
        customers.*,
        account_features.net_revenue_prior_365d,
        case
            when customers.net_revenue_365d > 0 then 'the last 365 days'
            when account_features.net_revenue_prior_365d > 0 then 'the 365 days before the last 365'
            else 'a mean year'
        end as amount_of
    from customers
    inner join account_features on customers.account_id = account_features.account_id
    where
        (customers.is_dormant or customers.age_stage = 'declining')
        and customers.days_since_last_order >= {{ threshold('win_back_from_days', 'profile_rules') }}
        and customers.days_since_last_order <= {{ threshold('win_back_until_days', 'profile_rules') }}

),

win_back_entries as (

    select
        'win-back' as list,
        account_id,
        'account' as subject,
        account_id as subject_id,
        case when is_dormant then 'Dormant' else 'Declining (' || age_reason || ')' end
        || ': last order ' || days_since_last_order || ' days ago, on ' || last_order_date
        || '. The amount is the net revenue of ' || amount_of || '.' as reason,
        greatest(
            case amount_of
                when 'the last 365 days' then net_revenue_365d
                when 'the 365 days before the last 365' then net_revenue_prior_365d
                else yearly_net_spend
            end, 0
        ) as amount,
        cast(null as date) as until_date,
        cast(null as numeric) as place_by
    from win_back_customers

),

-- What the model tells, beside what is usual among those it scored.
upsell_scores as (

    select
        *,
        avg(probability) over () as mean_probability
    from {{ ref('published_account_scores') }}
    where model = 'upsell'

),

upsell_chances as (

    select
        account_id,
        'Probability of '
        || case definition when 'new category' then 'a first order in a category new to it' else 'a rise in spend' end
        || ' in ' || horizon_days || ' days: ' || round(100 * probability, 1) || ' %, '
        || round(probability / nullif(mean_probability, 0), 1) || ' times the mean of '
        || round(100 * mean_probability, 1) || ' %.'
        || coalesce(
            ' Likeliest category: ' || next_best
            || coalesce(' (' || round(100 * next_best_probability, 1) || ' %)', '') || '.', ''
        )
        || coalesce(' ' || reason_1 || '.', '') as chance_words
    from upsell_scores

),

upsell_entries as (

    select
        'upsell' as list,
        customers.account_id,
        'account' as subject,
        customers.account_id as subject_id,
        case
            when customers.segment = 'potential' then 'Segment potential (' || customers.segment_action || ')'
            when customers.is_growth_candidate then 'Small today with high potential (' || customers.value_action || ')'
            else 'Likelier to buy more than most'
        end
        || ': net revenue of the last 365 days ' || customers.net_revenue_365d || ' ' || customers.currency
        || ' in ' || customers.orders_365d || ' orders; of a mean year ' || customers.yearly_net_spend || '.'
        || coalesce(' ' || upsell_chances.chance_words, '') as reason,
        greatest(customers.net_revenue_365d, 0) as amount,
        cast(null as date) as until_date,
        cast(null as numeric) as place_by
    from customers
    left join upsell_chances on customers.account_id = upsell_chances.account_id
    where
        (customers.segment = 'potential' or customers.is_growth_candidate or customers.upsell_chance = 'high')
        and not customers.is_dormant
        and customers.churn_risk is distinct from 'high'

),

nurture_entries as (

    select
        'nurture' as list,
        customers.account_id,
        'account' as subject,
        customers.account_id as subject_id,
        case
            when customers.tier = 'B' then 'Tier B: last order ' || customers.days_since_last_order || ' days ago.'
            when
                prospect_fit.fit_score is null
                then 'Prospect without an order, fit not known: ' || prospect_fit.no_fit_reason || '.'
            else
                'Prospect without an order, fit ' || round(prospect_fit.fit_score, 2) || ' of 1: '
                || coalesce(prospect_fit.matched_parts, 'no part of it matches')
                || '; ' || round(100 * prospect_fit.known_weight) || ' % of what counts is known.'
        end as reason,
        case when customers.tier = 'B' then greatest(customers.net_revenue_365d, 0) end as amount,
        cast(null as date) as until_date,
        prospect_fit.fit_score as place_by
    from customers
    left join prospect_fit on customers.account_id = prospect_fit.account_id
    where
        customers.tier = 'B'
        or (
            not customers.has_ordered
            and not customers.is_on_trial
            and coalesce(customers.relationship_stage, 'prospect') in ('prospect', 'trial')
            and (
                prospect_fit.fit_score is null
                or prospect_fit.fit_score >= {{ threshold('nurture_min_fit', 'profile_rules') }}
            )
        )

),

trial_offer_entries as (

    select
        'trial offer' as list,
        account_id,
        'account' as subject,
        account_id as subject_id,
        'On trial since ' || trial_began_on || ': '
        || round(100 * {{ threshold('trial_offer_discount', 'profile_rules') }}) || ' % off until '
        || {{ days_before('trial_began_on', '-' ~ trial_offer_days) }} || '.' as reason,
        cast(null as numeric) as amount,
        {{ days_before('trial_began_on', '-' ~ trial_offer_days) }} as until_date,
        cast(null as numeric) as place_by
    from customers
    where
        is_on_trial
        and {{ days_between('trial_began_on', as_of_date()) }} <= {{ trial_offer_days }}

),

monthly_visit_entries as (

    select
        'monthly visit' as list,
        account_id,
        'account' as subject,
        account_id as subject_id,
        'Value tier high (' || value_tier_reason || '): net revenue of the last 365 days ' || net_revenue_365d || ' '
        || currency || ', of a mean year ' || yearly_net_spend || '; last order ' || days_since_last_order
        || ' days ago.' as reason,
        greatest(net_revenue_365d, 0) as amount,
        cast(null as date) as until_date,
        cast(null as numeric) as place_by
    from customers
    where
        value_tier = 'high'

),

missing_role_entries as (

    select
        'missing decision role' as list,
        customers.account_id,
        'account' as subject,
        customers.account_id as subject_id,
        'Tier ' || customers.tier || ' without a contact who is: ' || missing_roles.missing || '.' as reason,
        cast(null as numeric) as amount,
        cast(null as date) as until_date,
        cast(null as numeric) as place_by
    from customers
    inner join missing_roles on customers.account_id = missing_roles.account_id
    where
        customers.tier in ('S', 'A')

),

unsigned_entries as (

    select
        'unsigned contracts' as list,
        account_id,
        'contract' as subject,
        contract_id as subject_id,
        'Contract ' || contract_id || ' waits for its signature since ' || sent_date || ', '
        || days_waiting || ' days.' as reason,
        contract_value as amount,
        cast(null as date) as until_date,
        cast(null as numeric) as place_by
    from contracts
    where
        not is_signed
        and days_waiting >= {{ threshold('unsigned_from_days', 'profile_rules') }}
        and days_waiting <= {{ threshold('unsigned_until_days', 'profile_rules') }}

),

expiring_entries as (

    select
        'expiring contracts' as list,
        account_id,
        'contract' as subject,
        contract_id as subject_id,
        'Contract ' || contract_id || ' ends on ' || ends_on
        || case
            when successor_contract_id is null then ', and none that follows it has been sent.'
            else
                '; renewal ' || successor_contract_id || ' sent' || coalesce(' on ' || successor_sent_date, '')
                || case
                    when is_signed is null then ', no signature of any contract is known.'
                    else ', not signed: chase the signature.'
                end
        end as reason,
        contract_value as amount,
        ends_on as until_date,
        cast(null as numeric) as place_by
    from contracts
    where
        (is_signed or is_signed is null)
        and not is_followed
        and ends_on >= {{ as_of_date() }}
        and {{ days_between(as_of_date(), 'ends_on') }} <= {{ threshold('expiring_within_days', 'profile_rules') }}

),

referral_reward_entries as (

    select
        'referral reward' as list,
        account_id,
        'referral' as subject,
        referral_id as subject_id,
        'Referred ' || referred_account_id || ' on ' || referred_date || ', which first ordered on '
        || first_order_date || ': ' || round(100 * {{ threshold('referral_reward_share', 'profile_rules') }}, 1)
        || ' % of ' || yearly_fee || ' {{ var("reporting_currency") }}, '
        || coalesce(
            'its yearly fee by contract ' || fee_contract_id,
            'its net revenue of the last 365 days, since no contract tells a fee'
        ) || '.' as reason,
        {{ threshold('referral_reward_share', 'profile_rules') }} * yearly_fee as amount,
        cast(null as date) as until_date,
        cast(null as numeric) as place_by
    from referral_rewards
    where
        round({{ threshold('referral_reward_share', 'profile_rules') }} * yearly_fee, 2) > 0

),

entries as (

    select * from churn_risk_entries
    union all
    select * from churn_rule_entries
    union all
    select * from executive_visit_entries
    union all
    select * from win_back_entries
    union all
    select * from upsell_entries
    union all
    select * from nurture_entries
    union all
    select * from trial_offer_entries
    union all
    select * from monthly_visit_entries
    union all
    select * from missing_role_entries
    union all
    select * from unsigned_entries
    union all
    select * from expiring_entries
    union all
    select * from referral_reward_entries

),

listed as (

    select
        customers.run_id,
        customers.as_of_date,
        entries.list,
        entries.account_id,
        entries.subject,
        entries.subject_id,
        customers.account_name,
        customers.crm_system,
        customers.crm_record_id,
        list_routing.owner_role,
        customers.owner_id,
        entries.reason,
        cast(entries.amount as numeric(18, 2)) as amount,
        case
            when entries.list = 'churn risk' and customers.churn_told_by = 'rules'
                then 'net revenue of the last 365 days: no probability is told'
            when entries.list = 'churn risk' and customers.churn_definition = 'contract lapse'
                then
                    'a year of its contract, where not known net revenue of the last 365 days, '
                    || 'times the probability of a lapse'
            else operating_lists.amount_is
        end as amount_is,
        customers.currency,
        entries.until_date,
        operating_lists.due_days,
        operating_lists.daily_capacity,
        operating_lists.priority,
        entries.place_by,
        entries.list = 'churn risk' and customers.churn_told_by = 'rules' as is_by_rules,
        customers.can_be_mailed,
        customers.no_mail_reason,
        'operating_lists' as policy,
        operating_lists.effective_from as policy_effective_from
    from entries
    inner join customers on entries.account_id = customers.account_id
    inner join operating_lists on entries.list = operating_lists.list
    left join list_routing on coalesce(customers.value_tier, 'unknown') = list_routing.value_tier
    left join account_holdouts on entries.account_id = account_holdouts.account_id
    where account_holdouts.account_id is null or not operating_lists.leaves_out_holdout

),

-- An amount times a probability and a whole one cannot be compared: each kind has an order of its own.
placed_in_kind as (

    select
        *,
        row_number() over (
            partition by list, is_by_rules
            order by amount desc nulls last, place_by desc nulls last, account_id asc, subject_id asc
        ) as place_in_kind,
        count(*) over (partition by list, is_by_rules) as kind_rows,
        count(*) over (partition by list) as list_rows
    from listed

),

-- Kinds take turns, in proportion to how many they are, so that the foremost of both stand at the top.
ranked as (

    select
        *,
        row_number() over (
            partition by list
            order by
                cast(place_in_kind - 1 as numeric(18, 6)) / kind_rows, is_by_rules, account_id, subject_id
        ) as place
    from placed_in_kind

),

-- A list longer than its daily capacity is due in parts: the first places on its day, the next ones a day later.
due as (

    select
        ranked.*,
        ranked.due_days + case
            when ranked.daily_capacity is null then 0
            else cast(floor(cast(ranked.place - 1 as numeric(18, 4)) / ranked.daily_capacity) as integer)
        end as days_until_due
    from ranked

),

final as (

    select
        run_id,
        as_of_date,
        list,
        account_id,
        subject,
        subject_id,
        account_name,
        crm_system,
        crm_record_id,
        owner_role,
        owner_id,
        reason
        || case
            when daily_capacity is null then ''
            else
                ' Number ' || place || ' of ' || list_rows
                || case
                    when kind_rows = list_rows then ' by amount; '
                    else
                        ': by amount ' || place_in_kind || ' of ' || kind_rows
                        || case when is_by_rules then ' by rules' else ' with a probability' end
                        || ', which take turns, since their amounts cannot be compared; '
                end
                || daily_capacity || ' are due a day.'
        end as reason,
        amount,
        amount_is,
        currency,
        least({{ days_before('as_of_date', '-days_until_due') }}, until_date) as due_date,
        priority,
        place,
        can_be_mailed,
        no_mail_reason,
        policy,
        policy_effective_from
    from due

)

select * from final
