"""A short, seeded sample of `make soak`: while inference pods are killed, no request is lost."""

import soak
from promises.world import CLUSTER, Promise


class Soak(Promise):
    def test_no_request_is_lost_while_pods_are_killed(self):
        self.addCleanup(CLUSTER.kubectl, "scale", "imagemodel", "emoji", "-n", "default", "--replicas=1")
        CLUSTER.kubectl("scale", "imagemodel", "emoji", "-n", "default", "--replicas=2")
        result = soak.soak(CLUSTER, seconds=25, seed=7, pause=(4, 7), victims=soak.VICTIMS[:1])
        self.assertGreater(result.answers.total(), 10)
        self.assertGreaterEqual(result.kills, 3)
        self.assertEqual(result.lost, 0, result)
