-- A failure means that a core feature has no number of its own: it has several in its rows, shares one with another
-- feature, or one that is not 0 to 62. Which features a mask names is then in doubt: mend the policy core_features.
with

core_features as (

    select * from {{ ref('core_features') }}

),

features as (

    select
        feature,
        'has several numbers' as fault
    from core_features
    group by feature
    having min(feature_bit) <> max(feature_bit)

),

bits as (

    select
        min(feature) as feature,
        'has the number of ' || max(feature) as fault
    from core_features
    group by feature_bit
    having min(feature) <> max(feature)

),

limits as (

    select
        feature,
        'has a number that is not 0 to 62' as fault
    from core_features
    where feature_bit < 0 or feature_bit > 62

),

final as (

    select * from features
    union all
    select * from bits
    union all
    select * from limits

)

select * from final
