{{ config(alias='reference_results') }}

with

reference_results as (

    {{ policy_rows('reference_results', key='result') }}

),

final as (

    select
        '{{ var("run_id") }}' as run_id,
        {{ as_of_date() }} as as_of_date,
        result,
        value_from,
        value_to,
        unit,
        statement,
        source
    from reference_results

)

select * from final
