"""The Triton kernel of the deformable conv; importing this file needs triton.

An implicit matrix product: rows are output cells, columns output channels, and the inner dimension
runs over taps and input channels. The rows' values are gathered bilinearly into registers and
multiplied at once, so that the columns (taps * C values per cell) are never written.
"""

# Annotations must stay objects here: triton reads `tl.constexpr` from them.
import triton
import triton.language as tl


@triton.jit
def _corner(pixels, image, y, x, strides, height, width, channel, channels, inside):
    """Values (M, K) of whole cells (y, x) of maps whose channels lie side by side, 0 outside."""
    there = inside & (y >= 0) & (y < height) & (x >= 0) & (x < width)
    row = image + y * strides[1] + x * strides[2]
    wanted = there[:, None] & (channel < channels)[None, :]
    return tl.load(pixels + row[:, None] + channel[None, :], mask=wanted, other=0.0).to(tl.float32)


@triton.jit
def _tile(
    pixels,
    offsets,
    masks,
    out,
    weight,
    bias,
    tile,
    block_n,
    batch,
    height,
    width,
    out_height,
    out_width,
    strides,
    offset_strides,
    mask_strides,
    channels,
    out_channels,
    STRIDE_Y: tl.constexpr,
    STRIDE_X: tl.constexpr,
    PAD_Y: tl.constexpr,
    PAD_X: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MASKED: tl.constexpr,
    BIASED: tl.constexpr,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDENED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Compute one tile, (BLOCK_M cells, BLOCK_N channels), of one level."""
    cell = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    per_image = out_height * out_width
    inside = cell < batch * per_image
    number = (cell // per_image).to(tl.int64)
    out_y = (cell % per_image) // out_width
    out_x = cell % out_width
    image = number * strides[0]
    moves = number * offset_strides[0] + out_y * offset_strides[2] + out_x * offset_strides[3]
    column = block_n * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), dtype=tl.float32)
    for tap in range(ROWS * COLUMNS):
        dy = tl.load(offsets + moves + 2 * tap * offset_strides[1], mask=inside, other=0.0)
        dx = tl.load(offsets + moves + (2 * tap + 1) * offset_strides[1], mask=inside, other=0.0)
        y = (out_y * STRIDE_Y - PAD_Y + tap // COLUMNS).to(tl.float32) + dy.to(tl.float32)
        x = (out_x * STRIDE_X - PAD_X + tap % COLUMNS).to(tl.float32) + dx.to(tl.float32)
        # beyond these all four corners are outside; integers stay small however far it is
        y = tl.minimum(tl.maximum(y, -2.0), height + 1.0)
        x = tl.minimum(tl.maximum(x, -2.0), width + 1.0)
        low_y, low_x = tl.floor(y), tl.floor(x)
        high_share_y, high_share_x = y - low_y, x - low_x
        top, left = low_y.to(tl.int32), low_x.to(tl.int32)
        if MASKED:
            place = number * mask_strides[0] + out_y * mask_strides[2] + out_x * mask_strides[3]
            factor = tl.load(masks + place + tap * mask_strides[1], mask=inside, other=0.0)
            factor = factor.to(tl.float32)
        else:
            factor = tl.full((BLOCK_M,), 1.0, tl.float32)
        upper, lower = (1.0 - high_share_y) * factor, high_share_y * factor
        for first in range(0, channels, BLOCK_K):
            channel = first + tl.arange(0, BLOCK_K)
            a = _corner(pixels, image, top, left, strides, height, width, channel, channels, inside)
            b = _corner(
                pixels, image, top, left + 1, strides, height, width, channel, channels, inside
            )
            c = _corner(
                pixels, image, top + 1, left, strides, height, width, channel, channels, inside
            )
            d = _corner(
                pixels, image, top + 1, left + 1, strides, height, width, channel, channels, inside
            )
            values = a * (upper * (1.0 - high_share_x))[:, None]
            values += b * (upper * high_share_x)[:, None]
            values += c * (lower * (1.0 - high_share_x))[:, None]
            values += d * (lower * high_share_x)[:, None]
            weights = tl.load(
                weight + (tap * channels + channel)[:, None] * out_channels + column[None, :],
                mask=(channel < channels)[:, None] & (column < out_channels)[None, :],
                other=0.0,
            )
            values = values.to(weights.dtype)
            if WIDENED:  # the interpreter has no product of bfloat16
                values, weights = values.to(tl.float32), weights.to(tl.float32)
            total = tl.dot(values, weights, total, input_precision=PRECISION)
    if BIASED:
        added = tl.load(bias + column, mask=column < out_channels, other=0.0)
        total += added.to(tl.float32)[None, :]
    if RELU:
        total = tl.maximum(total, 0.0)
    place = cell.to(tl.int64)[:, None] * out_channels + column[None, :]
    wanted = inside[:, None] & (column < out_channels)[None, :]
    tl.store(out + place, total.to(out.dtype.element_ty), mask=wanted)


@triton.jit
def deform_levels(
    pixels,
    offsets,
    masks,
    outs,
    tiles,
    sizes,
    strides,
    offset_strides,
    mask_strides,
    weight,
    bias,
    batch,
    channels,
    out_channels,
    LEVELS: tl.constexpr,
    STRIDE_Y: tl.constexpr,
    STRIDE_X: tl.constexpr,
    PAD_Y: tl.constexpr,
    PAD_X: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
    MASKED: tl.constexpr,
    BIASED: tl.constexpr,
    RELU: tl.constexpr,
    PRECISION: tl.constexpr,
    WIDENED: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """Convolve all levels in one launch: the tiles of all of them, one level after the other.

    `pixels`, `offsets`, `masks` and `outs` are tuples of pointers, one per level; `tiles` holds the
    number of the first tile of each level and after the last one; `sizes` (height, width, output
    height, output width) and `strides` (image, row, column) of the map of each level. Programs next
    to each other share the cells, not the weights.
    """
    program = tl.program_id(0)
    blocks = tl.cdiv(out_channels, BLOCK_N)
    tile, block_n = program // blocks, program % blocks
    for level in tl.static_range(LEVELS):
        if (tile >= tiles[level]) & (tile < tiles[level + 1]):
            _tile(
                pixels[level],
                offsets[level],
                masks[level],
                outs[level],
                weight,
                bias,
                tile - tiles[level],
                block_n,
                batch,
                sizes[level][0],
                sizes[level][1],
                sizes[level][2],
                sizes[level][3],
                strides[level],
                offset_strides[level],
                mask_strides[level],
                channels,
                out_channels,
                STRIDE_Y,
                STRIDE_X,
                PAD_Y,
                PAD_X,
                ROWS,
                COLUMNS,
                MASKED,
                BIASED,
                RELU,
                PRECISION,
                WIDENED,
                BLOCK_M,
                BLOCK_N,
                BLOCK_K,
            )
