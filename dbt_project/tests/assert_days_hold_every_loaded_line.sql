-- A failure means that the order lines counted by the loads (each new line once, corrections not at all) are not
-- the lines the account-days and the unattributed days hold: lines were lost or doubled on the way.
-- It is silent while loads have landed that this build has not seen.
with

loads as (

    select * from {{ source('audit', 'loads') }}
    where source = 'orders' and entity = 'order_lines' and status in ('loaded', 'replayed')

),

this_run as (

    select * from {{ source('audit', 'runs') }}
    where run_id = '{{ var("run_id") }}'

),

unseen as (

    select loads.load_id
    from loads
    inner join this_run on loads.loaded_at > this_run.started_at

),

loaded as (

    select coalesce(sum(rows_new), 0) as order_lines from loads

),

attributed as (

    select coalesce(sum(order_lines), 0) as order_lines from {{ ref('int_account_days') }}

),

unattributed as (

    select coalesce(sum(order_lines), 0) as order_lines from {{ ref('int_unattributed_days') }}

),

final as (

    select
        loaded.order_lines as lines_loaded,
        attributed.order_lines as lines_of_accounts,
        unattributed.order_lines as lines_without_account
    from loaded
    cross join attributed
    cross join unattributed
    where
        loaded.order_lines <> attributed.order_lines + unattributed.order_lines
        and not exists (select 1 from unseen)

)

select * from final
