{{ config(alias='account_clusters') }}

with

account_features as (

    select account_id from {{ ref('account_features') }}
    where as_of_date = {{ as_of_date() }}

),

cluster_run as (

    select * from {{ source('ml', 'cluster_runs') }}
    where run_id = '{{ var("run_id") }}'

),

account_clusters as (

    select * from {{ source('ml', 'account_clusters') }}
    where run_id = '{{ var("run_id") }}'

),

clusters as (

    select
        clusters.fit_id,
        clusters.cluster_id,
        clusters.name,
        fits.quarter_start
    from {{ source('ml', 'clusters') }} as clusters
    inner join cluster_run on clusters.fit_id = cluster_run.fit_id
    inner join {{ source('ml', 'cluster_fits') }} as fits on clusters.fit_id = fits.fit_id

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        account_features.account_id,
        account_clusters.cluster_id,
        clusters.name as cluster_name,
        cast(account_clusters.distance as numeric(12, 6)) as distance,
        clusters.quarter_start as fitted_for,
        case
            when account_clusters.account_id is null
                then coalesce(cluster_run.reason, 'no clusters were looked for in this run')
        end as no_cluster_reason
    from account_features
    left join cluster_run on true
    left join account_clusters on account_features.account_id = account_clusters.account_id
    left join clusters on account_clusters.cluster_id = clusters.cluster_id

)

select * from final
