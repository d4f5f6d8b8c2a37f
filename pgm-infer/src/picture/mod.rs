//! Pictures: a model of image codes with its codec, what it draws as files, and edits of given pictures.
//!
//! | file | question it answers |
//! |---|---|
//! | `pixels.rs` | a picture in memory; how it is read and written |
//! | `codec.rs` | what turns tokens into pixels and back |
//! | `codec_folder.rs` | codecs from a folder or a published file |
//! | `levels.rs` | pixels whose levels are the tokens, without any codec |
//! | `model.rs` | a model folder that draws pictures |
//! | `preview.rs` | how a picture looks while it fills |
//! | `edit.rs`, `region.rs` | which pixels of a given picture are drawn again, in which windows |
//! | `edit_run.rs` | drawing the windows; how they are pasted back |
//! | `sheet.rs`, `font.rs` | many pictures with the names of their classes in one |
//! | `animation.rs`, `terminal.rs` | an animated PNG; half blocks in a terminal |
//! | `samples.rs`, `npz.rs` | a folder of PNGs; the array file of image evaluations |

pub mod animation;
mod codec;
mod codec_folder;
mod edit;
mod edit_run;
mod font;
mod levels;
mod model;
pub mod npz;
mod pixels;
mod preview;
mod region;
pub mod samples;
mod sheet;
pub mod terminal;

pub use codec::PictureCodec;
pub use codec_folder::{CodecFolder, GridCodec};
pub use edit::Edit;
pub use edit_run::{EditRun, EditedPicture, EditedWindow, OpenWindow};
pub use levels::PixelLevels;
pub use model::ImageModel;
pub use pixels::Picture;
pub use preview::Filling;
pub use region::{PixelBox, Region};
pub use sheet::{SheetRow, contact_sheet};
