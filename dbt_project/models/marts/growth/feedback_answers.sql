{{ config(indexes=[{'columns': ['as_of_date', 'answer_id'], 'unique': true}]) }}

-- depends_on: {{ ref('kpi_dates') }}

with

growth_dates as (

    select * from {{ ref('growth_dates') }}

),

answers as (

    select
        growth_dates.as_of_date,
        growth_dates.month as month_of_date,
        growth_dates.followup_window_days,
        growth_dates.csat_satisfied_from,
        growth_dates.csat_scale_to,
        survey_answers.record_id as answer_id,
        account_keys.account_id,
        survey_answers.survey_type,
        survey_answers.answer,
        survey_answers.submitted_at,
        survey_answers.submitted_date,
        -- Who answered: the contact, else the company.
        coalesce(survey_answers.contact_record_id, survey_answers.company_record_id) as respondent
    from growth_dates
    inner join {{ ref('int_crm_survey_answers') }} as survey_answers
        on
            {{ stands_on('survey_answers', 'growth_dates.as_of_date') }}
            and growth_dates.as_of_date >= survey_answers.submitted_date
            and survey_answers.submitted_date
            > {{ days_before('growth_dates.as_of_date', 'growth_dates.nps_window_days') }}
    inner join {{ ref('growth_account_keys') }} as account_keys
        on
            survey_answers.company_record_id = account_keys.account_key
            and growth_dates.as_of_date = account_keys.as_of_date
    where survey_answers.answer is not null

),

placed as (

    select
        *,
        row_number() over (
            partition by as_of_date, account_id, survey_type, respondent order by submitted_at desc, answer_id desc
        ) as newness
    from answers

),

-- What was done for an account: a ticket opened, an opportunity begun.
deeds as (

    select
        company_record_id,
        created_date as done_on,
        valid_from_date as known_from,
        valid_until_date as known_until
    from {{ ref('int_crm_tickets') }}
    where not is_archived
    union all
    select
        company_record_id,
        created_date as done_on,
        valid_from_date as known_from,
        valid_until_date as known_until
    from {{ ref('int_opportunities') }}

),

followed as (

    select distinct
        placed.as_of_date,
        placed.answer_id
    from placed
    inner join {{ ref('growth_account_keys') }} as account_keys
        on
            placed.as_of_date = account_keys.as_of_date
            and placed.account_id = account_keys.account_id
    inner join deeds
        on
            account_keys.account_key = deeds.company_record_id
            and placed.as_of_date >= deeds.known_from
            and (placed.as_of_date < deeds.known_until or deeds.known_until is null)
            and placed.submitted_date <= deeds.done_on
            and {{ days_before('placed.submitted_date', '-placed.followup_window_days') }} >= deeds.done_on
            and placed.as_of_date >= deeds.done_on
    where placed.survey_type = 'NPS' and placed.answer <= 6

),

-- Whether any such deed is known by the date: else nothing could tell.
first_deeds as (

    select min(done_on) as done_on from deeds

),

told as (

    select
        growth_dates.as_of_date,
        case when growth_dates.as_of_date >= first_deeds.done_on then 1 else 0 end as can_be_told
    from growth_dates
    cross join first_deeds

),

final as (

    select
        placed.as_of_date,
        placed.answer_id,
        placed.account_id,
        account_tiers.tier as tier_before,
        {{ month_start('placed.submitted_date') }} as month,
        placed.respondent,
        placed.survey_type,
        placed.answer,
        placed.submitted_date,
        case when placed.survey_type = 'NPS' and placed.newness = 1 then 1 else 0 end as is_nps_in_force,
        case when placed.survey_type = 'NPS' and placed.newness = 1 and placed.answer >= 9 then 1 else 0 end
            as is_promoter,
        case when placed.survey_type = 'NPS' and placed.newness = 1 and placed.answer <= 6 then 1 else 0 end
            as is_detractor,
        case when placed.survey_type = 'CSAT' and placed.submitted_date >= placed.month_of_date then 1 else 0 end
            as is_csat_of_month,
        case
            when placed.survey_type = 'CSAT' and placed.submitted_date >= placed.month_of_date
                then case when placed.answer >= placed.csat_satisfied_from then 1 else 0 end
        end as is_satisfied,
        case
            when
                placed.survey_type = 'NPS'
                and placed.answer <= 6
                and {{ days_before('placed.submitted_date', '-placed.followup_window_days') }} <= placed.as_of_date
                then 1
            else 0
        end as is_to_follow_up,
        case
            when told.can_be_told = 0 then null
            when followed.answer_id is not null then 1
            else 0
        end as is_followed_up
    from placed
    inner join told on placed.as_of_date = told.as_of_date
    left join followed on placed.as_of_date = followed.as_of_date and placed.answer_id = followed.answer_id
    left join {{ ref('account_tiers') }} as account_tiers
        on
            {{ days_before('placed.month_of_date', 1) }} = account_tiers.as_of_date
            and placed.account_id = account_tiers.account_id

)

select * from final
