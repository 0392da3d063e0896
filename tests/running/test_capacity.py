"""Whether a cluster has room, by numbers alone; refusals on real clusters are in tests/cluster/test_local_cluster.py."""

from raylr.running.capacity import Demand


def test_a_worker_has_its_place_on_one_node():
    demand = Demand({"CPU": 2.0}, workers=3)
    assert demand.capacity([{"CPU": 3.0}, {"CPU": 5.0}, {"memory": 9.0}]) == 3
    found = demand.shortage([{"CPU": 3.0}, {"CPU": 3.0}])
    assert found == "workers=3 need 3 places of 2 CPU, but the nodes have room for 2"
    assert demand.advice([{"CPU": 3.0}]) == "lower --workers or add a node"


def test_a_population_is_offered_as_many_trials_as_there_is_room_for():
    demand, nodes = Demand({"CPU": 1.0}, workers=2, trials=8), [{"CPU": 4.0}, {"CPU": 3.0}]
    assert demand.shortage(nodes) == "trials=8 of 2 workers need 16 CPUs at once, but the cluster has 7"
    assert demand.advice(nodes) == "use --trials 3"
    assert demand.advice([{"CPU": 1.0}]) == "lower --workers or add a node"


def test_gpus_are_counted_as_cpus_are():
    demand = Demand({"CPU": 1.0, "GPU": 1.0}, workers=1, trials=4)
    nodes = [{"CPU": 16.0, "GPU": 2.0}, {"CPU": 1.0, "GPU": 4.0}, {"CPU": 64.0}]
    assert demand.capacity(nodes) == 3
    assert (
        demand.shortage(nodes)
        == "trials=4 of 1 workers need 4 places of 1 CPU and 1 GPU at once, but the nodes have room for 3"
    )
    assert demand.advice(nodes) == "use --trials 3"
