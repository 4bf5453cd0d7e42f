"""What proves plans by the checks in the ledger, beside a gateway that serves: certificates are issued and revoked."""
