"""The three matrix products of an output layer, for the rows of a chunk, into buffers kept from chunk to chunk.

Of several teachers' layers the first one alone: what they say together."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from stillroom.models.blending import blended
from stillroom.models.device import gains_from_bfloat16
from stillroom.rows import Head, MixedHead

NEVER = -1e30
"""Stands for a logit of minus infinity: its exponential is 0 beside any other, and 0 times it is 0 and not NaN."""
TILE_BYTES = 4 << 20
WHOLE_BYTES = 32 << 20
"""A weight of another dtype up to this size is converted once and not tile by tile for every chunk."""


def product_dtype(hidden: torch.Tensor, weight: torch.Tensor) -> torch.dtype:
    """The dtype of the hidden state; on a processor at least float32, but for bfloat16 where that gains.

    Without instructions for it a product takes ten times as long as converting the weight by tiles and multiplying in float32.
    """
    if hidden.device.type != "cpu" or (hidden.dtype == torch.bfloat16 and gains_from_bfloat16("cpu")):
        return hidden.dtype
    return torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)


class Logits:
    """An output layer at work: logits [C, V] / temperature of hidden states [C, H], and the way back.

    Products are made in `product`; logits, their gradients and sums over chunks are in `exact`.
    """

    def __init__(
        self,
        head: Head,
        product: torch.dtype,
        exact: torch.dtype,
        temperature: float,
        rows: int,
        *,
        back: bool = False,
    ) -> None:
        """`rows` is the most there are in a chunk; `back`: the gradient will be asked for."""
        vocabulary, width = head.weight_VH.shape
        self.product, self.exact, self.cap = product, exact, head.soft_cap
        self.weight_VH = head.weight_VH.detach()
        converted = self.weight_VH.dtype != product
        # The matrix product multiplies by a number for nothing: the cap's, or the temperature's where there is no cap.
        self.scale = 1 / (self.cap or temperature)
        self.after = self.cap / temperature if self.cap else 1.0
        bias_V = None if head.bias_V is None else head.bias_V.detach().to(exact).clamp(min=NEVER)
        # On a processor a weight that is copied anyway takes its bias along as one more column, for a hidden state that is 1
        # there: of a thin product a bias that is added apart took half the time.
        in_column = converted and not back and product == exact and head.weight_VH.device.type == "cpu"
        self.column_V = bias_V if in_column else None
        self.bias_V = None if bias_V is None or self.column_V is not None else bias_V * self.scale
        width += self.column_V is not None
        fresh = head.weight_VH.new_empty
        whole = converted and vocabulary * width * product.itemsize <= WHOLE_BYTES
        height = max(1, min(vocabulary, TILE_BYTES // (width * product.itemsize)))
        self.tile_vH = fresh(vocabulary if whole else height, width, dtype=product) if converted else None
        if whole:
            self.weight_VH, self.tile_vH = self._converted(slice(0, vocabulary)), None
        self.narrow_CV = None if product == exact else fresh(rows, vocabulary, dtype=product)
        self.slope_CV = fresh(rows, vocabulary, dtype=exact) if self.cap and back else None
        # A processor adds numbers of another format at a tenth of the speed at which it converts them and then adds.
        tiled = back and product != exact and head.weight_VH.device.type == "cpu"
        self.part_vH = (fresh(height, width, dtype=product), fresh(height, width, dtype=exact)) if tiled else None

    def fill(self, hidden_CH: torch.Tensor, out_CV: torch.Tensor) -> None:
        """Writes the logits divided by the temperature."""
        hidden_CH, made_CV = hidden_CH.to(self.product), self._narrow(out_CV)
        if self.column_V is not None:
            hidden_CH = torch.cat([hidden_CH, torch.ones_like(hidden_CH[:, :1])], 1)
        for columns, weight_vH in self._tiles():
            part_Cv = made_CV[:, columns]
            if self.bias_V is None or self.narrow_CV is not None:
                part_Cv.addmm_(hidden_CH, weight_vH.T, beta=0, alpha=self.scale)
            else:
                torch.addmm(self.bias_V[columns], hidden_CH, weight_vH.T, alpha=self.scale, out=part_Cv)
        if self.narrow_CV is not None:
            out_CV.copy_(made_CV)
            if self.bias_V is not None:
                out_CV.add_(self.bias_V)
        if self.cap:
            out_CV.tanh_()
            if self.slope_CV is not None:
                self.slope_CV[: len(out_CV)].copy_(out_CV)
            out_CV.mul_(self.after)

    def back(self, gradient_CV: torch.Tensor) -> torch.Tensor:
        """Makes the gradient of the filled logits the gradient of uncapped logits / temperature, in the products' dtype."""
        if self.slope_CV is not None:
            slope_CV = self.slope_CV[: len(gradient_CV)]
            gradient_CV.mul_(slope_CV.square_().neg_().add_(1))
        if self.narrow_CV is None:
            return gradient_CV
        return self._narrow(gradient_CV).copy_(gradient_CV)

    def to_hidden(self, gradient_CV: torch.Tensor, out_CH: torch.Tensor) -> None:
        """Writes gradient @ weight."""
        if out_CH.dtype != self.product:
            out_CH.zero_()
            for columns, weight_vH in self._tiles():
                out_CH += gradient_CV[:, columns] @ weight_vH
            return
        for columns, weight_vH in self._tiles():
            out_CH.addmm_(gradient_CV[:, columns], weight_vH, beta=int(columns.start > 0))

    def to_weight(self, gradient_CV: torch.Tensor, hidden_CH: torch.Tensor, sum_VH: torch.Tensor) -> None:
        """Adds gradient.T @ hidden to a sum over chunks."""
        hidden_CH = hidden_CH.to(self.product)
        if sum_VH.dtype == self.product:
            sum_VH.addmm_(gradient_CV.T, hidden_CH)
        elif self.part_vH is None:
            sum_VH += gradient_CV.T @ hidden_CH
        else:
            for columns in _slices(len(sum_VH), len(self.part_vH[0])):
                made_vH, wide_vH = (part_vH[: columns.stop - columns.start] for part_vH in self.part_vH)
                torch.mm(gradient_CV[:, columns].T, hidden_CH, out=made_vH)
                sum_VH[columns] += wide_vH.copy_(made_vH)

    def _narrow(self, like_CV: torch.Tensor) -> torch.Tensor:
        return like_CV if self.narrow_CV is None else self.narrow_CV[: len(like_CV)]

    def _tiles(self) -> Iterator[tuple[slice, torch.Tensor]]:
        vocabulary = len(self.weight_VH)
        if self.tile_vH is None:
            yield slice(0, vocabulary), self.weight_VH
            return
        for columns in _slices(vocabulary, len(self.tile_vH)):
            yield columns, self._converted(columns)

    def _converted(self, columns: slice) -> torch.Tensor:
        """These rows of the weight in the products' dtype, in a tile that the next ones overwrite."""
        assert self.tile_vH is not None
        made_vH = self.tile_vH[: columns.stop - columns.start]
        if self.column_V is None:
            return made_vH.copy_(self.weight_VH[columns])
        made_vH[:, :-1].copy_(self.weight_VH[columns])
        made_vH[:, -1].copy_(self.column_V[columns])
        return made_vH


def _slices(count: int, size: int) -> Iterator[slice]:
    return (slice(start, min(start + size, count)) for start in range(0, count, size))


class MixedLogits:
    """Several teachers' output layers at work: logits [C, V] / temperature of the mean of what they say. No way back."""

    def __init__(
        self, head: MixedHead, product: torch.dtype, exact: torch.dtype, temperature: float, rows: int
    ) -> None:
        """`rows` is the most there are in a chunk."""
        self.head, self.scale = head, 1 / temperature
        # The mean is of what each says at temperature 1; only then is it softened.
        self.parts = [Logits(one, product, exact, 1.0, rows) for one in head.heads]
        self.spare_CV = head.heads[0].weight_VH.new_empty(rows, head.vocabulary, dtype=exact)

    def fill(self, hidden_CH: torch.Tensor, out_CV: torch.Tensor) -> None:
        """Writes the logits divided by the temperature."""
        total_CV: torch.Tensor | None = None
        hidden = torch.split(hidden_CH, self.head.widths, 1)
        for part, own_CH, share in zip(self.parts, hidden, self.head.share_K, strict=True):
            made_CV = out_CV if total_CV is None else self.spare_CV[: len(out_CV)]
            part.fill(own_CH, made_CV)
            total_CV = blended(total_CV, made_CV, share, self.head.mean)
        out_CV.mul_(self.scale)
