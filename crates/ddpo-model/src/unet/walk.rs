//! The UNet as a row of segments: one order for a plain forward, for checkpointing and for what is computed ahead.

use ddpo_torch::nn::{Conv2d, GroupNorm};
use tch::Tensor;

use super::Unet;
use crate::attention::{AttentionContext, SpatialTransformer};
use crate::resnet::{Downsample, ResnetBlock, Upsample};

/// A part of the UNet between two feature maps.
pub(super) struct Segment<'a> {
    part: Part<'a>,
    pub(super) skip: Skip,
}

enum Part<'a> {
    In(&'a Conv2d),
    Block {
        resnet: &'a ResnetBlock,
        /// With its place among the network's transformers.
        attention: Option<(&'a SpatialTransformer, usize)>,
    },
    Downsample(&'a Downsample),
    Upsample(&'a Upsample),
    Out(&'a GroupNorm, &'a Conv2d),
}

/// What a segment has to do with the connections across the UNet.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Skip {
    /// Nothing.
    Apart,
    /// Its output is taken again on the way up.
    Leaves,
    /// Joins what was left last.
    Takes,
}

/// What a segment starts from.
pub(super) struct Given {
    /// `[batch, channels, height, width]`.
    pub(super) h: Tensor,
    /// Of the same height and width, where the segment takes one.
    pub(super) skip: Option<Tensor>,
    /// Height and width of the next skip, which upsampling has to meet.
    pub(super) size: [i64; 2],
}

impl Given {
    pub(super) fn shallow_clone(&self) -> Self {
        Self {
            h: self.h.shallow_clone(),
            skip: self.skip.as_ref().map(Tensor::shallow_clone),
            size: self.size,
        }
    }
}

impl<'a> Segment<'a> {
    /// # Shapes
    /// - `time`: `[batch, 4 * channels of the first level]`
    /// - returns: `[batch, channels, height, width]`
    pub(super) fn forward(
        &self,
        given: &Given,
        time: &Tensor,
        context: AttentionContext<'_>,
    ) -> Tensor {
        // One consumer of the feature map: autograd then sums what flows back into it within the segment first,
        // as checkpointing does, and the two ways add the same numbers in the same order.
        let h = given.h.alias();
        match &self.part {
            Part::In(conv) => conv.forward(&h),
            Part::Block { resnet, attention } => {
                let h = match &given.skip {
                    Some(skip) => Tensor::cat(&[&h, skip], 1),
                    None => h,
                };
                let h = resnet.forward(&h, Some(time));
                match attention {
                    Some((attention, place)) => {
                        let depth = attention.depth();
                        attention.forward(&h, context.part(place * depth, depth))
                    }
                    None => h,
                }
            }
            Part::Downsample(downsample) => downsample.forward(&h),
            Part::Upsample(upsample) => upsample.forward(&h, given.size),
            Part::Out(norm, conv) => conv.forward(&norm.forward(&h).silu()),
        }
    }

    /// Whether a weight or factor of it records gradients.
    pub(super) fn is_trained(&self) -> bool {
        match &self.part {
            Part::In(conv) | Part::Out(_, conv) => conv.weight.requires_grad(),
            Part::Block { resnet, attention } => {
                let attention = attention.is_some_and(|(attention, _)| attention.is_trained());
                resnet.is_trained() || attention
            }
            Part::Downsample(downsample) => downsample.conv().weight.requires_grad(),
            Part::Upsample(upsample) => upsample.conv().weight.requires_grad(),
        }
    }

    /// Its transformer, if it has one.
    pub(super) fn attention(&self) -> Option<&'a SpatialTransformer> {
        match &self.part {
            Part::Block { attention, .. } => attention.map(|(attention, _)| attention),
            _ => None,
        }
    }
}

impl Unet {
    /// In the order of a forward pass.
    pub(super) fn segments(&self) -> Vec<Segment<'_>> {
        let mut n_attentions = 0;
        let mut block = |resnet, attention: Option<_>| {
            let attention = attention.map(|attention| (attention, n_attentions));
            n_attentions += usize::from(attention.is_some());
            Part::Block { resnet, attention }
        };
        let mut all = vec![(Part::In(&self.conv_in), Skip::Leaves)];
        for (level, downsample) in &self.down {
            for (i, resnet) in level.resnets.iter().enumerate() {
                all.push((block(resnet, level.attentions.get(i)), Skip::Leaves));
            }
            all.extend(
                downsample
                    .iter()
                    .map(|d| (Part::Downsample(d), Skip::Leaves)),
            );
        }
        for (i, resnet) in self.mid.resnets.iter().enumerate() {
            all.push((block(resnet, self.mid.attentions.get(i)), Skip::Apart));
        }
        for (level, upsample) in &self.up {
            for (i, resnet) in level.resnets.iter().enumerate() {
                all.push((block(resnet, level.attentions.get(i)), Skip::Takes));
            }
            all.extend(upsample.iter().map(|u| (Part::Upsample(u), Skip::Apart)));
        }
        all.push((Part::Out(&self.norm_out, &self.conv_out), Skip::Apart));
        let segment = |(part, skip)| Segment { part, skip };
        all.into_iter().map(segment).collect()
    }

    /// Runs all segments; `note` sees what each starts from.
    ///
    /// # Shapes
    /// - `x`: `[batch, in_channels, height, width]`, in the layout that the segments shall keep
    /// - returns: the same shape
    pub(super) fn walk(
        &self,
        x: Tensor,
        time: &Tensor,
        context: AttentionContext<'_>,
        note: &mut dyn FnMut(&Given),
    ) -> Tensor {
        let (mut h, mut skips) = (x, Vec::<Tensor>::new());
        for segment in self.segments() {
            let skip = match segment.skip {
                Skip::Takes => Some(
                    skips
                        .pop()
                        .expect("one skip a residual block, by construction"),
                ),
                _ => None,
            };
            let size = skips.last().map_or(h.size(), Tensor::size);
            let size = [size[2], size[3]];
            let given = Given { h, skip, size };
            note(&given);
            h = segment.forward(&given, time, context);
            if segment.skip == Skip::Leaves {
                skips.push(h.shallow_clone());
            }
        }
        h
    }
}
