"""The set ``cuda`` where there is no GPU: its tests in the simulator, which needs a process of its own."""


def test_cuda_kernels_pass_their_tests_in_the_simulator(simulated_run):
    output, _ = simulated_run.communicate()
    assert simulated_run.returncode == 0, "\n".join(output.splitlines()[-60:])
    assert " passed" in output
