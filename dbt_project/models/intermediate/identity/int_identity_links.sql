{%- set key_columns = {'tax_id': 'tax_id', 'domain': 'domain', 'name': 'plain_name'} %}
-- What each CRM company is the account of, before merges, on each day by what was known by its end. What somebody
-- wrote into a record later, often because the account had ordered, would else stand in what is told of the past.
with

rule_dates as (

    select distinct effective_from from {{ ref('identity_rules') }}

),

-- A stretch of time in which the rules are the same; the first one begins with all time.
rule_periods as (

    select
        effective_from,
        case
            when lag(effective_from) over (order by effective_from) is null then {{ beginning() }}
            else effective_from
        end as valid_from_date,
        coalesce(lead(effective_from) over (order by effective_from), {{ end_of_time() }}) as valid_until_date
    from rule_dates

),

rules as (

    select *
    from (
        select
            rule_periods.valid_from_date,
            rule_periods.valid_until_date,
            dated_rules.rule,
            dated_rules.priority,
            dated_rules.is_on,
            row_number() over (
                partition by rule_periods.valid_from_date, dated_rules.rule order by dated_rules.effective_from desc
            ) as newness
        from rule_periods
        inner join {{ ref('identity_rules') }} as dated_rules
            on rule_periods.effective_from >= dated_rules.effective_from
    ) as dated
    where newness = 1

),

legal_forms as (

    select
        coalesce({{ joined_texts("case when place = 'word' then form end", '|') }}, '~') as words,
        coalesce({{ joined_texts("case when place = 'ending' then form end", '|') }}, '~') as endings
    from {{ ref('legal_forms') }}

),

decisions as (

    select * from {{ source('identity', 'decisions_in_force') }}

),

record_decisions as (

    select *
    from (
        select
            *,
            row_number() over (partition by source_system, source_account_id order by decision_id desc) as newness
        from decisions
        where action in ('link', 'separate')
    ) as ranked
    where newness = 1

),

companies as (

    select
        companies.crm_system as source_system,
        companies.source_record_id as source_account_id,
        companies.record_id,
        coalesce(companies.is_internal, false) as is_flagged,
        lower(companies.account_name) as lower_name,
        {{ normal_domain('companies.domain') }} as domain,
        record_decisions.action as decided,
        record_decisions.account_id as decided_account_id
    from {{ ref('int_crm_companies') }} as companies
    left join record_decisions
        on
            companies.crm_system = record_decisions.source_system
            and companies.source_record_id = record_decisions.source_account_id
    where companies.is_latest

),

-- A test record is of nobody but itself.
internal_rules as (

    select distinct
        kind,
        value
    from {{ ref('internal_accounts') }}
    where is_internal

),

internal_records as (

    select distinct companies.record_id
    from companies
    inner join internal_rules
        on
            (internal_rules.kind = 'source_flag' and companies.is_flagged)
            or (internal_rules.kind = 'domain' and companies.domain = internal_rules.value)
            or (internal_rules.kind = 'name_pattern' and companies.lower_name like internal_rules.value)

),

company_versions as (

    select
        companies.record_id,
        companies.is_archived,
        companies.account_number,
        {{ normal_name('companies.account_name', 'legal_forms.words', 'legal_forms.endings') }} as plain_name,
        {{ normal_domain('companies.domain') }} as domain,
        {{ normal_tax_id('companies.tax_id') }} as tax_id,
        {{ version_days('companies') }}
    from {{ ref('int_crm_companies') }} as companies
    cross join legal_forms

),

-- What a company says of itself in a stretch of days_of_judgement. Of several versions of a day the last holds.
company_facts as (

    select
        companies.source_system,
        companies.source_account_id,
        companies.record_id,
        companies.decided,
        internal_records.record_id is not null as is_internal,
        company_versions.is_archived,
        company_versions.plain_name,
        company_versions.domain,
        company_versions.tax_id,
        case
            when companies.decided = 'link' then companies.decided_account_id
            when companies.decided = 'separate' then companies.record_id
            else company_versions.account_number
        end as exact_account_id,
        company_versions.valid_from_date as from_date,
        coalesce(company_versions.valid_until_date, {{ end_of_time() }}) as until_date
    from company_versions
    inner join companies on company_versions.record_id = companies.record_id
    left join internal_records on company_versions.record_id = internal_records.record_id
    where
        company_versions.valid_until_date is null
        or company_versions.valid_until_date > company_versions.valid_from_date

),

customer_versions as (

    select
        customers.customer_id,
        customers.is_archived,
        {{ normal_name('customers.customer_name', 'legal_forms.words', 'legal_forms.endings') }} as plain_name,
        {{ normal_domain('customers.domain') }} as domain,
        {{ normal_tax_id('customers.tax_id') }} as tax_id,
        {{ local_date('customers.valid_from') }} as from_date,
        coalesce(
            lead({{ local_date('customers.valid_from') }}) over (
                partition by customers.customer_id order by customers.valid_from, customers.load_seq
            ),
            {{ end_of_time() }}
        ) as until_date
    from {{ ref('stg_customers') }} as customers
    cross join legal_forms

),

-- A customer that was merged away and the one it was merged into are no two candidates, from when that is said.
stated_merges as (

    select
        account_id,
        min(into_account_id) as into_account_id,
        min(from_date) as from_date
    from (
        select
            customer_id as account_id,
            merged_into_customer_id as into_account_id,
            min({{ local_date('valid_from') }}) as from_date
        from {{ ref('stg_customers') }}
        where merged_into_customer_id is not null
        group by customer_id, merged_into_customer_id
        having max(case when is_latest then 1 else 0 end) = 1
        union all
        select
            account_id,
            into_account_id,
            coalesce(effective_from, {{ beginning() }}) as from_date
        from decisions
        where action = 'merge'
    ) as merge_statements
    group by account_id
    having count(distinct into_account_id) = 1

),

parties as (

    select
        customer_id as account_id,
        plain_name,
        domain,
        tax_id,
        from_date,
        until_date
    from customer_versions
    where not is_archived and from_date < until_date
    union all
    select
        exact_account_id as account_id,
        plain_name,
        domain,
        tax_id,
        from_date,
        until_date
    from company_facts
    where
        exact_account_id is not null
        and coalesce(decided, 'link') = 'link'
        and not is_archived
        and not is_internal

),

known_parties as (

    select
        parties.account_id,
        parties.plain_name,
        parties.tax_id,
        parties.from_date,
        parties.until_date,
        case when free_mail_domains.domain is null then parties.domain end as domain
    from parties
    left join {{ ref('free_mail_domains') }} as free_mail_domains on parties.domain = free_mail_domains.domain

),

party_keys as (

    {%- for rule, column in key_columns.items() %}
    select
        '{{ rule }}' as rule,
        {{ column }} as key_text,
        account_id,
        from_date,
        until_date
    from known_parties
    where {{ column }} is not null
    {% if not loop.last %}union all{% endif %}
    {%- endfor %}

),

account_keys as (

    select
        party_keys.rule,
        party_keys.key_text,
        party_keys.account_id,
        party_keys.account_id as survivor_id,
        party_keys.from_date,
        least(party_keys.until_date, stated_merges.from_date) as until_date
    from party_keys
    left join stated_merges on party_keys.account_id = stated_merges.account_id
    where party_keys.from_date < stated_merges.from_date or stated_merges.from_date is null
    union all
    select
        party_keys.rule,
        party_keys.key_text,
        party_keys.account_id,
        stated_merges.into_account_id as survivor_id,
        greatest(party_keys.from_date, stated_merges.from_date) as from_date,
        party_keys.until_date
    from party_keys
    inner join stated_merges on party_keys.account_id = stated_merges.account_id
    where party_keys.until_date > stated_merges.from_date

),

-- Of the accounts that share a key for good the ten that had it first: two tell that it is ambiguous, and a thousand
-- would have every record of that key judged a thousand times.
candidates as (

    select *
    from (
        select
            account_keys.*,
            dense_rank() over (
                partition by account_keys.rule, account_keys.key_text, account_keys.until_date
                order by account_keys.from_date, account_keys.survivor_id
            ) as place
        from account_keys
    ) as placed
    where place <= 10 or until_date < {{ end_of_time() }}

),

record_keys as (

    {%- for rule, column in key_columns.items() %}
    select
        record_id,
        '{{ rule }}' as rule,
        {{ column }} as key_text,
        from_date,
        until_date
    from company_facts
    where {{ column }} is not null and exact_account_id is null and not is_internal
    {% if not loop.last %}union all{% endif %}
    {%- endfor %}

),

matches as (

    select
        record_keys.record_id,
        record_keys.rule,
        record_keys.key_text,
        candidates.account_id,
        candidates.survivor_id,
        greatest(record_keys.from_date, candidates.from_date) as from_date,
        least(record_keys.until_date, candidates.until_date) as until_date
    from record_keys
    inner join candidates
        on
            record_keys.rule = candidates.rule
            and record_keys.key_text = candidates.key_text
            and record_keys.from_date < candidates.until_date
            and record_keys.until_date > candidates.from_date

),

matched_records as (

    select distinct
        record_id,
        survivor_id
    from matches

),

-- The days on which what is known of a record, or of the accounts that its keys name, changes: it is judged on each.
days_of_judgement as (

    select
        record_id,
        from_date
    from matches
    union
    select
        record_id,
        until_date as from_date
    from matches
    union
    select
        company_facts.record_id,
        company_facts.from_date
    from company_facts
    inner join matched_records on company_facts.record_id = matched_records.record_id
    union
    select
        matched_records.record_id,
        account_keys.from_date
    from matched_records
    inner join account_keys on matched_records.survivor_id = account_keys.survivor_id
    union
    select
        matched_records.record_id,
        account_keys.until_date as from_date
    from matched_records
    inner join account_keys on matched_records.survivor_id = account_keys.survivor_id
    union
    select
        matched_records.record_id,
        rule_periods.valid_from_date as from_date
    from matched_records
    cross join rule_periods

),

rule_matches as (

    select
        days_of_judgement.from_date,
        rules.priority,
        matches.record_id,
        matches.rule,
        matches.key_text,
        count(distinct matches.survivor_id) as candidates,
        min(matches.survivor_id) as survivor_id,
        case when count(distinct matches.account_id) = 1 then min(matches.account_id) else min(matches.survivor_id) end
            as account_id,
        {{ joined_texts('matches.account_id', ', ') }} as candidate_ids
    from days_of_judgement
    inner join matches
        on
            days_of_judgement.record_id = matches.record_id
            and days_of_judgement.from_date >= matches.from_date
            and days_of_judgement.from_date < matches.until_date
    inner join rules
        on
            matches.rule = rules.rule
            and days_of_judgement.from_date >= rules.valid_from_date
            and days_of_judgement.from_date < rules.valid_until_date
    where rules.is_on
    group by days_of_judgement.from_date, rules.priority, matches.record_id, matches.rule, matches.key_text

),

best_matches as (

    select *
    from (
        select
            *,
            row_number() over (partition by from_date, record_id order by priority, rule) as place
        from rule_matches
    ) as ranked
    where place = 1

),

-- Other evidence that names somebody else, and stronger evidence, known on both sides, that differs.
contradictions as (

    select
        best_matches.from_date,
        best_matches.record_id,
        other_matches.candidate_ids as other_ids,
        other_matches.rule || ' ' || other_matches.key_text || ' is that of ' || other_matches.candidate_ids as evidence
    from best_matches
    inner join rule_matches as other_matches
        on
            best_matches.from_date = other_matches.from_date
            and best_matches.record_id = other_matches.record_id
            and best_matches.rule <> other_matches.rule
    where
        not exists (
            select 1
            from account_keys
            where
                account_keys.rule = other_matches.rule
                and account_keys.key_text = other_matches.key_text
                and account_keys.survivor_id = best_matches.survivor_id
                and account_keys.from_date <= best_matches.from_date
                and account_keys.until_date > best_matches.from_date
        )
    union all
    select
        best_matches.from_date,
        best_matches.record_id,
        null as other_ids,
        record_keys.rule || ' ' || record_keys.key_text || ' is not that of ' || best_matches.account_id as evidence
    from best_matches
    inner join rules
        on
            best_matches.from_date >= rules.valid_from_date
            and best_matches.from_date < rules.valid_until_date
            and best_matches.priority > rules.priority
    inner join record_keys
        on
            best_matches.record_id = record_keys.record_id
            and rules.rule = record_keys.rule
            and best_matches.from_date >= record_keys.from_date
            and best_matches.from_date < record_keys.until_date
    where
        exists (
            select 1
            from account_keys
            where
                account_keys.rule = rules.rule
                and account_keys.survivor_id = best_matches.survivor_id
                and account_keys.from_date <= best_matches.from_date
                and account_keys.until_date > best_matches.from_date
        )
        and not exists (
            select 1
            from account_keys
            where
                account_keys.rule = rules.rule
                and account_keys.survivor_id = best_matches.survivor_id
                and account_keys.key_text = record_keys.key_text
                and account_keys.from_date <= best_matches.from_date
                and account_keys.until_date > best_matches.from_date
        )

),

contradicted as (

    select
        from_date,
        record_id,
        {{ joined_texts('other_ids', ', ') }} as other_ids,
        {{ joined_texts('evidence', '; ') }} as evidence
    from contradictions
    group by from_date, record_id

),

verdicts as (

    select
        best_matches.from_date,
        best_matches.record_id,
        best_matches.rule,
        best_matches.account_id,
        case
            when best_matches.candidates > 1 then 'ambiguous'
            when contradicted.record_id is not null then 'contradictory'
            else 'linked'
        end as verdict,
        best_matches.candidate_ids || coalesce(', ' || contradicted.other_ids, '') as candidate_ids,
        best_matches.rule || ' ' || best_matches.key_text || ' is that of ' || best_matches.candidate_ids
        || coalesce('; ' || contradicted.evidence, '') as evidence
    from best_matches
    left join contradicted
        on
            best_matches.from_date = contradicted.from_date
            and best_matches.record_id = contradicted.record_id

),

records_in_periods as (

    -- A decision corrects what was wrong on every date.
    select
        source_system,
        source_account_id,
        record_id,
        'decision' as matched_by,
        case when decided = 'link' then decided_account_id else record_id end as account_id,
        'linked' as verdict,
        cast(null as text) as candidate_ids,
        cast(null as text) as evidence,
        {{ beginning() }} as from_date
    from companies
    where decided is not null
    union all
    -- Until anything is known of a company it stands for itself.
    select
        company_facts.source_system,
        company_facts.source_account_id,
        company_facts.record_id,
        'own_id' as matched_by,
        company_facts.record_id as account_id,
        case when company_facts.is_internal then 'internal' else 'alone' end as verdict,
        cast(null as text) as candidate_ids,
        cast(null as text) as evidence,
        {{ beginning() }} as from_date
    from company_facts
    where company_facts.decided is null
    group by
        company_facts.source_system,
        company_facts.source_account_id,
        company_facts.record_id,
        company_facts.is_internal
    having min(company_facts.from_date) > {{ beginning() }}
    union all
    select
        source_system,
        source_account_id,
        record_id,
        'account_number' as matched_by,
        exact_account_id as account_id,
        'linked' as verdict,
        cast(null as text) as candidate_ids,
        cast(null as text) as evidence,
        from_date
    from company_facts
    where exact_account_id is not null and decided is null
    union all
    select
        company_facts.source_system,
        company_facts.source_account_id,
        company_facts.record_id,
        case when verdicts.verdict = 'linked' then verdicts.rule else 'own_id' end as matched_by,
        case when verdicts.verdict = 'linked' then verdicts.account_id else company_facts.record_id end as account_id,
        case
            when company_facts.is_internal then 'internal'
            else coalesce(verdicts.verdict, 'alone')
        end as verdict,
        verdicts.candidate_ids,
        verdicts.evidence,
        coalesce(days_of_judgement.from_date, company_facts.from_date) as from_date
    from company_facts
    left join days_of_judgement
        on
            company_facts.record_id = days_of_judgement.record_id
            and company_facts.from_date <= days_of_judgement.from_date
            and company_facts.until_date > days_of_judgement.from_date
    left join verdicts
        on
            days_of_judgement.record_id = verdicts.record_id
            and days_of_judgement.from_date = verdicts.from_date
    where company_facts.exact_account_id is null

),

-- One row for neighbouring periods in which nothing differs.
changes as (

    select *
    from (
        select
            *,
            lag(told) over (partition by record_id order by from_date) as told_before
        from (
            select
                *,
                account_id || ' ' || matched_by || ' ' || verdict || ' ' || coalesce(candidate_ids, '')
                || ' ' || coalesce(evidence, '') as told
            from records_in_periods
        ) as tellings
    ) as placed
    where told_before is distinct from told

),

final as (

    select
        source_system,
        source_account_id,
        record_id,
        account_id,
        matched_by,
        verdict,
        candidate_ids,
        evidence,
        nullif(from_date, {{ beginning() }}) as valid_from_date,
        lead(from_date) over (partition by record_id order by from_date) as valid_until_date
    from changes

)

select * from final
