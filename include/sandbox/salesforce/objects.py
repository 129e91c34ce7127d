"""The object types of the sandbox's Salesforce org: fields with their rules, parents, and which keep history."""

from dataclasses import dataclass, field

LONGEST = {"string": 255, "email": 80, "textarea": 32_000, "picklist": 255, "anyType": 255}
"""Kind of field → the longest text it takes, where the field names no other length."""


@dataclass(frozen=True)
class Field:
    """A field: its kind as describe names it, and what a write of it has to keep to.

    `length` is of text, in characters. `required` is asked of a new record, and cannot be emptied. `values` restrict
    a picklist (one without them takes any text, as Salesforce's standard ones do). An `external_id` may be upserted by.
    """

    kind: str
    length: int = 0
    required: bool = False
    writable: bool = True
    unique: bool = False
    external_id: bool = False
    values: tuple[str, ...] = ()

    @property
    def longest(self) -> int:
        """The longest text it takes; 0 where it is no text."""
        return self.length or LONGEST.get(self.kind, 0)


SYSTEM_FIELDS = {
    "Id": Field("id", writable=False),
    "IsDeleted": Field("boolean", writable=False),
    "CreatedDate": Field("datetime", writable=False),
    "LastModifiedDate": Field("datetime", writable=False),
    "SystemModstamp": Field("datetime", writable=False),
}


@dataclass(frozen=True)
class SObject:
    """An object type: the first characters of its ids, its own fields, and its parents by relationship name.

    `history` is the object that keeps its field history; what is not `writable` Salesforce writes itself.
    """

    name: str
    prefix: str
    own_fields: dict[str, Field]
    parents: dict[str, str] = field(default_factory=dict)
    history: str | None = None
    writable: bool = True

    @property
    def fields(self) -> dict[str, Field]:
        """All fields by name."""
        return SYSTEM_FIELDS | self.own_fields


STRING, EMAIL, PICKLIST, REFERENCE = Field("string"), Field("email"), Field("picklist"), Field("reference")
BOOLEAN, CURRENCY, DATE = Field("boolean"), Field("currency"), Field("date")
NAME = Field("string", required=True)
DERIVED = Field("boolean", writable=False)  # what Salesforce itself keeps up to date


def _history(name: str, prefix: str, parent: str) -> SObject:
    value = Field("anyType")
    fields = {f"{parent}Id": REFERENCE, "Field": PICKLIST, "OldValue": value, "NewValue": value}
    return SObject(name, prefix, fields, {parent: parent}, writable=False)


OBJECTS = {
    each.name: each
    for each in (
        SObject("User", "005", {"Name": STRING, "IsActive": BOOLEAN}, writable=False),
        SObject(
            "Account",
            "001",
            {
                "Name": NAME,
                "AccountNumber": Field("string", 40),
                "ERP_Number__c": Field("string", 80, unique=True, external_id=True),
                "Industry": PICKLIST,
                "BillingCountry": Field("string", 80),
                "Description": Field("textarea"),
                "IsPersonAccount": DERIVED,
                "OwnerId": REFERENCE,
                "Website": Field("url", 255),
                "ParentId": REFERENCE,
                "MasterRecordId": Field("reference", writable=False),
            },
            {"Owner": "User"},
            "AccountHistory",
        ),
        SObject(
            "Contact",
            "003",
            {
                "AccountId": REFERENCE,
                "LastName": Field("string", 80, required=True),
                "Email": EMAIL,
                "Title": Field("string", 128),
                "HasOptedOutOfEmail": BOOLEAN,
                "OwnerId": REFERENCE,
            },
            {"Account": "Account", "Owner": "User"},
            "ContactHistory",
        ),
        SObject(
            "Opportunity",
            "006",
            {
                "AccountId": REFERENCE,
                "Name": Field("string", 120, required=True),
                "Amount": CURRENCY,
                "CurrencyIsoCode": PICKLIST,
                "StageName": Field("picklist", required=True),
                "Type": PICKLIST,
                "CloseDate": Field("date", required=True),
                "IsWon": DERIVED,
                "IsClosed": DERIVED,
                "LeadSource": PICKLIST,
                "OwnerId": REFERENCE,
            },
            {"Account": "Account", "Owner": "User"},
            "OpportunityFieldHistory",
        ),
        SObject(
            "OpportunityContactRole",
            "00k",
            {
                "OpportunityId": Field("reference", required=True),
                "ContactId": Field("reference", required=True),
                "Role": PICKLIST,
                "IsPrimary": BOOLEAN,
            },
            {"Opportunity": "Opportunity", "Contact": "Contact"},
        ),
        SObject(
            "Case",
            "500",
            {
                "AccountId": REFERENCE,
                "Subject": STRING,
                "Priority": PICKLIST,
                "Status": PICKLIST,
                "IsClosed": DERIVED,
                "ClosedDate": Field("datetime", writable=False),
                "OwnerId": REFERENCE,
            },
            {"Account": "Account", "Owner": "User"},
            "CaseHistory",
        ),
        _history("AccountHistory", "017", "Account"),
        _history("ContactHistory", "03j", "Contact"),
        _history("OpportunityFieldHistory", "00h", "Opportunity"),
        _history("CaseHistory", "02f", "Case"),
        SObject(
            "OpportunityHistory",
            "008",
            {
                "OpportunityId": REFERENCE,
                "StageName": PICKLIST,
                "Amount": CURRENCY,
                "CloseDate": DATE,
                "Probability": Field("percent"),
            },
            {"Opportunity": "Opportunity"},
            writable=False,
        ),
        SObject("PermissionSet", "0PS", {"Name": Field("string", 80, required=True), "Label": NAME}),
        SObject(
            "FieldPermissions",
            "01k",
            {
                "ParentId": Field("reference", required=True),
                "SobjectType": Field("picklist", required=True),
                "Field": Field("picklist", required=True),
                "PermissionsRead": BOOLEAN,
                "PermissionsEdit": BOOLEAN,
            },
            {"Parent": "PermissionSet"},
        ),
        SObject(
            "FieldDefinition",
            "00N",
            {
                "QualifiedApiName": STRING,
                "IsFieldHistoryTracked": BOOLEAN,
                "EntityDefinitionId": REFERENCE,
            },
            {"EntityDefinition": "EntityDefinition"},
            writable=False,
        ),
        SObject("EntityDefinition", "4ie", {"QualifiedApiName": STRING}, writable=False),
    )
}
SNAPSHOT_FIELDS = ("StageName", "Amount", "CloseDate")
"""A change of one of these writes a row of OpportunityHistory, whatever is tracked."""
