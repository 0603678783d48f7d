"""Both charts render, refuse nonsense in their values, and give no more rights or privileges than they should."""

import json
import subprocess
import unittest

from easel import paths


def helm(*argv: str) -> subprocess.CompletedProcess:
    return subprocess.run(["helm", *argv], capture_output=True, text=True, check=False)


def render(*values: str) -> list[dict]:
    """What Helm would apply, as objects: kubectl turns the YAML into JSON without a cluster."""
    flags = [flag for value in values for flag in ("--set", value)]
    done = helm("template", "easel", str(paths.CHARTS / "easel"), "--namespace", "easel-system", *flags)
    assert done.returncode == 0, done.stderr
    objects = []
    for document in done.stdout.split("\n---\n"):
        if any(line and not line.startswith(("#", "---")) for line in document.splitlines()):
            command = ["kubectl", "label", "--local", "-f", "-", "easel-check=1", "-o", "json"]
            labelled = subprocess.run(command, input=document, capture_output=True, text=True, check=False)
            assert labelled.returncode == 0, labelled.stderr + document
            objects.append(json.loads(labelled.stdout))
    return objects


def of_kind(objects: list[dict], kind: str) -> list[dict]:
    return [thing for thing in objects if thing["kind"] == kind]


class Charts(unittest.TestCase):
    def test_both_charts_pass_helms_lint(self):
        for chart in ("easel", "easel-crds"):
            done = helm("lint", "--strict", str(paths.CHARTS / chart))
            self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_values_that_make_no_sense_are_refused_by_the_schema(self):
        for value in ("replicas=0", "replicas=many", "gateway.service.type=Magic", "gateway.service.nodePort=80", "unknown=1",
                      "leaderElection.leaseSeconds=0", "gateway.url=ftp"):
            done = helm("template", "easel", str(paths.CHARTS / "easel"), "--set", value)
            self.assertNotEqual(done.returncode, 0, value)
            self.assertIn(value.partition("=")[0].rpartition(".")[2], done.stderr)

    def test_every_pod_is_restricted(self):
        objects = render()
        specs = [thing["spec"]["template"]["spec"] for kind in ("Deployment", "Job") for thing in of_kind(objects, kind)]
        self.assertTrue(specs)
        for spec in specs:
            self.assertTrue(spec["securityContext"]["runAsNonRoot"])
            self.assertEqual(spec["securityContext"]["seccompProfile"]["type"], "RuntimeDefault")
            for container in spec["containers"]:
                security = container["securityContext"]
                self.assertTrue(security["readOnlyRootFilesystem"])
                self.assertFalse(security["allowPrivilegeEscalation"])
                self.assertEqual(security["capabilities"]["drop"], ["ALL"])

    def test_no_right_has_a_wildcard(self):
        roles = [role for kind in ("ClusterRole", "Role") for role in of_kind(render(), kind)]
        self.assertTrue(roles)
        for role in roles:
            for rule in role["rules"]:
                self.assertNotIn("*", rule["apiGroups"] + rule["resources"] + rule["verbs"], rule)

    def test_secrets_can_not_be_listed_in_all_namespaces(self):
        for role in of_kind(render(), "ClusterRole"):
            for rule in role["rules"]:
                if "secrets" in rule["resources"]:
                    self.assertFalse({"list", "watch"} & set(rule["verbs"]), rule)

    def test_secrets_can_be_read_by_name_and_events_be_written(self):
        rules = [rule for role in of_kind(render(), "ClusterRole") for rule in role["rules"]]
        verbs = {resource: set(rule["verbs"]) for rule in rules for resource in rule["resources"]}
        self.assertLessEqual({"get"}, verbs["secrets"])
        self.assertLessEqual({"create", "patch"}, verbs["events"])

    def test_stores_are_told_to_the_operator_and_allowed_by_its_policy(self):
        values = ("stores.egress[0].namespace=stores", "stores.egress[0].ports={5000,9000}",
                  "stores.egress[1].cidr=10.0.0.0/8", "stores.egress[1].ports={443}")
        for given, flags in (((), ["0.0.0.0/0=443", "::/0=443"]), (values, ["namespace/stores=5000,9000", "10.0.0.0/8=443"])):
            objects = render(*given)
            args = of_kind(objects, "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]["args"]
            self.assertEqual([arg.split("=", 1)[1] for arg in args if arg.startswith("--store-egress")], flags)
            egress = of_kind(objects, "NetworkPolicy")[0]["spec"]["egress"]
            # DNS and the API server, pods, and the gateways whose demand the leader hears; then the stores.
            self.assertEqual(len(egress), 4 + len(flags))
            self.assertIn([{"port": 7443}], [rule.get("ports") for rule in egress])
        self.assertEqual(egress[-2]["to"][0]["namespaceSelector"]["matchLabels"], {"kubernetes.io/metadata.name": "stores"})
        self.assertEqual([port["port"] for port in egress[-2]["ports"]], [5000, 9000])

    def test_a_store_without_address_or_port_is_refused(self):
        for value in ("stores.egress[0].cidr=10.0.0.0/8", "stores.egress[0].ports={443}", "stores.egress[0].cidr=r.example"):
            done = helm("template", "easel", str(paths.CHARTS / "easel"), "--set", value)
            self.assertNotEqual(done.returncode, 0, value)

    def test_one_replica_has_no_disruption_budget_that_would_block_a_drain(self):
        self.assertEqual(of_kind(render("replicas=1"), "PodDisruptionBudget"), [])
        self.assertEqual(len(of_kind(render("replicas=2"), "PodDisruptionBudget")), 1)
