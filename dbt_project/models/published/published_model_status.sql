{{ config(alias='model_status') }}

with

runs as (

    select * from {{ source('ml', 'runs') }}
    where run_id = '{{ var("run_id") }}'

),

drift as (

    select * from {{ source('ml', 'drift') }}
    where run_id = '{{ var("run_id") }}'

),

features as (

    select
        model,
        name,
        psi,
        state,
        reason,
        row_number() over (partition by model order by psi desc nulls last, name asc) as place
    from drift
    where subject = 'feature'

),

feature_drift as (

    select
        model,
        count(psi) as compared,
        count(case when state = 'shifted' then 1 end) as shifted,
        count(case when state = 'moved' then 1 end) as moved,
        max(case when place = 1 and psi is not null then name end) as farthest,
        cast(max(psi) as numeric(12, 4)) as farthest_psi,
        max(reason) as reason
    from features
    group by model

),

-- The scores against training, and against the last set that was published.
score_drift as (

    select
        model,
        max(case when reference = 'training' then state end) as training_state,
        max(case when reference = 'training' then reason end) as training_reason,
        cast(max(case when reference = 'training' then psi end) as numeric(12, 4)) as training_psi,
        max(case when reference = 'last_set' then state end) as last_set_state,
        max(case when reference = 'last_set' then reason end) as last_set_reason,
        cast(max(case when reference = 'last_set' then psi end) as numeric(12, 4)) as last_set_psi,
        max(case when reference = 'last_set' then reference_date end) as last_set_date
    from drift
    where subject = 'score'
    group by model

),

-- What came true: of each model the newest month-end that was measured by the date.
measured as (

    select
        *,
        dense_rank() over (partition by model order by as_of_date desc, measured_as_of desc, run_id asc) as newness
    from {{ source('ml', 'calibration_drift') }}
    where measured_as_of <= {{ as_of_date() }}

),

calibration as (

    select
        model,
        max(as_of_date) as told_on,
        cast(max(case when part = 0 then mean_probability end) as numeric(7, 6)) as told,
        cast(max(case when part = 0 then observed_rate end) as numeric(7, 6)) as came_true,
        cast(max(case when part = 0 then low end) as numeric(7, 6)) as low,
        cast(max(case when part = 0 then high end) as numeric(7, 6)) as high,
        cast(max(case when part = 0 then calibration_error end) as numeric(7, 6)) as calibration_error
    from measured
    where newness = 1
    group by model

),

final as (

    select
        runs.run_id,
        {{ as_of_date() }} as as_of_date,
        runs.model,
        runs.status,
        runs.reason,
        runs.definition,
        runs.horizon_days,
        runs.model_id,
        runs.trained_as_of,
        runs.base_rate,
        runs.auc,
        runs.accounts as accounts_scored,
        feature_drift.farthest as farthest_feature,
        feature_drift.farthest_psi as farthest_feature_psi,
        score_drift.training_psi as score_psi,
        score_drift.last_set_psi as score_psi_last_set,
        calibration.told_on as calibration_told_on,
        calibration.told as calibration_told,
        calibration.came_true as calibration_came_true,
        calibration.calibration_error,
        case
            when runs.status = 'absent' then 'No model serves, so nothing is measured.'
            when score_drift.model is null then 'The drift of the run was not measured.'
            else
                case
                    when coalesce(feature_drift.compared, 0) = 0
                        then 'Features not compared: ' || coalesce(feature_drift.reason, 'the model uses none')
                    else
                        'Of ' || feature_drift.compared || ' features ' || feature_drift.shifted || ' shifted and '
                        || feature_drift.moved || ' moved since training, the farthest ' || feature_drift.farthest
                        || ' (PSI ' || round(feature_drift.farthest_psi, 2) || ')'
                end
                || '. Scores against training: '
                || case
                    when score_drift.training_psi is null
                        then 'not compared, ' || coalesce(score_drift.training_reason, 'not measured')
                    else score_drift.training_state || ' (PSI ' || round(score_drift.training_psi, 2) || ')'
                end
                || '; against the last published set: '
                || case
                    when score_drift.last_set_psi is null
                        then 'not compared, ' || coalesce(score_drift.last_set_reason, 'not measured')
                    else
                        score_drift.last_set_state || ' (PSI ' || round(score_drift.last_set_psi, 2) || ', of '
                        || score_drift.last_set_date || ')'
                end
                || '.'
        end
        || case
            when calibration.model is null
                then ' No window of a published month-end has passed: what came true is not known yet.'
            else
                ' Of ' || calibration.told_on || ' ' || round(100 * calibration.told, 1) || ' % was told and '
                || round(100 * calibration.came_true, 1) || ' % (' || round(100 * calibration.low, 1) || ' to '
                || round(100 * calibration.high, 1) || ' %) came true, calibration error '
                || round(calibration.calibration_error, 3) || '.'
        end as drift_told
    from runs
    left join feature_drift on runs.model = feature_drift.model
    left join score_drift on runs.model = score_drift.model
    left join calibration on runs.model = calibration.model

)

select * from final
