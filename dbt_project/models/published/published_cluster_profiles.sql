{{ config(alias='cluster_profiles') }}

with

account_clusters as (

    select * from {{ ref('published_account_clusters') }}
    where cluster_id is not null

),

account_tiers as (

    select
        account_id,
        tier
    from {{ ref('account_tiers') }}
    where as_of_date = {{ as_of_date() }}

),

cluster_run as (

    select * from {{ source('ml', 'cluster_runs') }}
    where run_id = '{{ var("run_id") }}'

),

clusters as (

    select clusters.*
    from {{ source('ml', 'clusters') }} as clusters
    inner join cluster_run on clusters.fit_id = cluster_run.fit_id

),

company as (

    select count(*) as accounts
    from account_clusters

),

-- A cluster that nobody is in on the date is told with no accounts.
sizes as (

    select
        clusters.cluster_id,
        clusters.name,
        clusters.description,
        count(account_clusters.account_id) as accounts
    from clusters
    left join account_clusters on clusters.cluster_id = account_clusters.cluster_id
    group by clusters.cluster_id, clusters.name, clusters.description

),

tiers as (

    select
        tier,
        count(*) as accounts
    from account_tiers
    group by tier

),

tier_crossings as (

    select
        account_clusters.cluster_id,
        account_tiers.tier,
        count(*) as accounts
    from account_clusters
    inner join account_tiers on account_clusters.account_id = account_tiers.account_id
    group by account_clusters.cluster_id, account_tiers.tier

),

measures as (

    select
        cluster_id,
        'median ' || measure as measure,
        cast(median as numeric(18, 4)) as value,
        cast(company_median as numeric(18, 4)) as company_value
    from {{ source('ml', 'cluster_medians') }}
    where run_id = '{{ var("run_id") }}'
    union all
    select
        sizes.cluster_id,
        'share of tier ' || tiers.tier as measure,
        cast(
            coalesce(tier_crossings.accounts, 0) / nullif(cast(sizes.accounts as numeric), 0) as numeric(18, 4)
        ) as value,
        cast(tiers.accounts / nullif(cast(company.accounts as numeric), 0) as numeric(18, 4)) as company_value
    from sizes
    cross join tiers
    cross join company
    left join tier_crossings
        on
            sizes.cluster_id = tier_crossings.cluster_id
            and tiers.tier = tier_crossings.tier

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        sizes.cluster_id,
        measures.measure,
        sizes.name as cluster_name,
        sizes.description,
        sizes.accounts,
        cast(sizes.accounts / nullif(cast(company.accounts as numeric), 0) as numeric(9, 4)) as share,
        measures.value,
        measures.company_value
    from sizes
    cross join company
    inner join measures on sizes.cluster_id = measures.cluster_id

)

select * from final
