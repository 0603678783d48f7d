//! What a picture can be drawn from. Checkpoints differ in which of these they can do.

use std::fmt;

use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Task {
    /// From noise alone, by a prompt.
    Generate,
    /// From a picture with noise on it.
    ImageToImage,
    /// Where a mask says; the rest of the picture stays.
    Inpaint,
    /// From noise, as a picture steers.
    Control,
    /// From noise, beside a picture that an instruction says how to change.
    Instruct,
}

impl Task {
    /// As in "this model can …".
    pub fn verb(self) -> &'static str {
        match self {
            Self::Generate => "draw from nothing",
            Self::ImageToImage => "start from a picture",
            Self::Inpaint => "fill a mask",
            Self::Control => "draw as a picture steers",
            Self::Instruct => "edit by an instruction",
        }
    }
}

impl fmt::Display for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.verb())
    }
}

/// Why a model that can do `tasks` is not asked for another one, and what to do instead.
pub fn refusal_of(tasks: &[Task], wanted: Task) -> Option<&'static str> {
    if tasks.contains(&wanted) {
        return None;
    }
    let can = |task| tasks.contains(&task);
    Some(match wanted {
        Task::Generate if can(Task::Control) => {
            "this model draws as a picture steers: send one with the prompt, to /v1/images/edits"
        }
        Task::Generate if can(Task::Inpaint) => {
            "this model fills masks: send a picture and a mask with the prompt, to /v1/images/edits"
        }
        Task::Generate => "this model changes pictures: send one with the prompt, to /v1/images/edits",
        Task::ImageToImage | Task::Inpaint if can(Task::Control) => {
            "this model takes a picture that steers: leave mask and strength out"
        }
        Task::ImageToImage if can(Task::Instruct) => {
            "this model edits by an instruction and takes no strength: leave it out, or use image_guidance_scale"
        }
        Task::ImageToImage if can(Task::Inpaint) => {
            "this model fills masks and can do nothing without one: send a mask"
        }
        Task::Inpaint if can(Task::Instruct) => {
            "this model edits by an instruction and takes no mask: leave it out, and say in the prompt what to change"
        }
        Task::ImageToImage | Task::Inpaint => {
            "this model draws from nothing, for its checkpoint has no VAE encoder to read a picture with: send the \
             prompt to /v1/images/generations"
        }
        Task::Control => "this model has no ControlNet: leave out what says how a picture steers",
        Task::Instruct => "this model edits by no instruction and takes no image_guidance_scale: leave it out",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_refusal_says_what_to_do_instead() {
        const ALL: [Task; 5] = [Task::Generate, Task::ImageToImage, Task::Inpaint, Task::Control, Task::Instruct];
        const DRAWS: &[Task] = &[Task::Generate, Task::ImageToImage, Task::Inpaint];
        for tasks in [DRAWS, &[Task::Generate], &[Task::Inpaint], &[Task::Control], &[Task::Instruct]] {
            for wanted in ALL {
                let refusal = refusal_of(tasks, wanted);
                assert_eq!(refusal.is_none(), tasks.contains(&wanted), "{tasks:?} {wanted:?}");
                assert!(
                    refusal.is_none_or(|text| text.starts_with("this model ") && text.contains(':')),
                    "{refusal:?}"
                );
            }
        }
    }
}
