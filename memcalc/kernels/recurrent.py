"""Recurrent layers (torch.nn.LSTM and its kin) as cuDNN runs them.

Not here is what only the library itself can tell: the reserve that it keeps for backward and the workspace that it
works in (cudnnGetRNNTempSpaceSizes: by no documented rule, and not monotonic in the data's dimensions, as its
documentation says), and the states that it draws dropout with (cudnnDropoutGetStatesSize).
"""

CUDNN_SPACES_LEFT_OUT = (
    "cuDNN runs the recurrent layer: what it keeps for backward (its reserve), what it works in and the states of its "
    "dropout are known to it alone and not in the figures; memcalc profile measures them"
)


def cudnn_rnn_weights(
    *, gates: int, input_size: int, hidden_size: int, layers: int, directions: int, projection: int = 0
) -> int:
    """Numbers in the one block that holds all weights of a recurrent layer, of so many `gates` (LSTM: 4).

    The weights one after the other, two biases to each, also where the layer has none.
    Source: PyTorch 2.13, aten/src/ATen/native/cudnn/RNN.cpp, get_num_weights, get_parameters (which asserts that there
    are no gaps inside a weight's gates); that this is cudnnGetRNNParamsSize for odd sizes too, both directions and
    several layers: RETURNN, tests/test_TFNetworkRecLayer.py, test_RecLayer_get_cudnn_params_size.
    """
    rows, out = gates * hidden_size, projection or hidden_size
    total = 0
    for layer in range(layers):
        inputs = input_size if layer == 0 else out * directions
        total += directions * (rows * (inputs + out + 2) + projection * hidden_size)
    return total
