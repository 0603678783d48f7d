"""Pods without a cluster: started as processes, spoken to as the gateway and the operator do."""
