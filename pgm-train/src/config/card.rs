//! The section `[card]`.

use serde::{Deserialize, Serialize};

/// What the model card says that neither the data nor the weights know.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CardSection {
    /// Title of the card; without one it is the kind and the size of the model.
    pub name: String,
    /// Licence of the model, by its identifier on the Hugging Face Hub, as in `mit`.
    pub license: String,
    /// Language codes of the text, with commas between several, as in `en`.
    pub language: String,
    /// What the data is, where it comes from, and under which licence.
    pub data: String,
}

impl CardSection {
    /// Whether it says nothing.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The section as `pgm-train config` prints it.
    pub(super) fn example() -> Self {
        Self {
            name: "Tiny Shakespeare".to_string(),
            license: "mit".to_string(),
            language: "en".to_string(),
            data: "Plays of Shakespeare, in the public domain.".to_string(),
        }
    }

    /// The language codes.
    pub(crate) fn languages(&self) -> Vec<String> {
        self.language.split(',').map(|code| code.trim().to_string()).filter(|code| !code.is_empty()).collect()
    }

    pub(super) fn validate(&self) -> Result<(), String> {
        let keys =
            [("name", &self.name), ("license", &self.license), ("language", &self.language), ("data", &self.data)];
        if let Some((key, _)) = keys.iter().find(|(_, text)| text.chars().any(char::is_control)) {
            return Err(format!("card.{key} must be one line"));
        }
        let is_word = |text: &str| text.chars().all(|letter| letter.is_ascii_alphanumeric() || "-.+_".contains(letter));
        if !is_word(&self.license) {
            return Err(format!("card.license = {:?} must be an identifier, as in mit or cc-by-4.0", self.license));
        }
        match self.languages().iter().all(|code| is_word(code)) {
            true => Ok(()),
            false => {
                Err(format!("card.language = {:?} must be codes with commas between, as in en, de", self.language))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::config::{CodecTrainConfig, ConfigFile, DistillConfig, TrainConfig};

    fn parse(settings: &[&str]) -> Result<TrainConfig, String> {
        let settings: Vec<String> = settings.iter().map(|setting| setting.to_string()).collect();
        TrainConfig::parse(TrainConfig::EXAMPLE, "run.toml", &settings).map_err(|error| error.to_string())
    }

    #[test]
    fn mistakes_in_a_card_are_named() {
        let config = parse(&["card.license=mit", "card.language=en, no", "card.data=Rhymes: of \"cats\"."]).unwrap();
        assert_eq!(config.run.card.languages(), ["en", "no"]);
        for (setting, says) in [
            ("card.license=MIT License", "card.license = \"MIT License\" must be an identifier"),
            ("card.language=English or German", "card.language = \"English or German\" must be codes"),
            ("card.name=\"a\\nb\"", "card.name must be one line"),
            ("card.licence=mit", "unknown key card.licence; the keys of [card] are data, language, license, name"),
        ] {
            let message = parse(&[setting]).unwrap_err();
            assert!(message.contains(says), "{setting}: {message}");
        }
        assert!(DistillConfig::parse(DistillConfig::EXAMPLE, "x", &["card.license=a b".to_string()]).is_err());
        assert!(CodecTrainConfig::parse(CodecTrainConfig::EXAMPLE, "x", &["card.license=a b".to_string()]).is_err());
    }

    #[test]
    fn the_file_of_a_configuration_gives_it_again() {
        let objectives = ["partition", "masked", "masked-complementary", "autoregressive", "maskgit"];
        for objective in objectives.map(|name| format!("objective={name}")) {
            let more = if objective.ends_with("partition") { "teacher.model=runs/mdlm" } else { "card.license=mit" };
            let config = parse(&[&objective, "optim.eps=1e-9", "model.sets=mix", more]);
            // Not every objective takes sets.
            let config = config.or_else(|_| parse(&[&objective, "optim.eps=1e-9", more])).unwrap();
            let file = config.to_file().unwrap();
            assert_eq!(TrainConfig::parse(&file, "again", &[]).unwrap(), config, "{file}");
        }
        let distill = DistillConfig::parse(DistillConfig::EXAMPLE, "x", &["card.name=It\'s".to_string()]).unwrap();
        assert_eq!(DistillConfig::parse(&distill.to_file().unwrap(), "again", &[]).unwrap(), distill);
        for quantizer in ["codec.quantizer=fsq", "codec.quantizer=vq"] {
            let config = CodecTrainConfig::parse(CodecTrainConfig::EXAMPLE, "x", &[quantizer.to_string()]).unwrap();
            assert_eq!(CodecTrainConfig::parse(&config.to_file().unwrap(), "again", &[]).unwrap(), config);
        }
        let mut config = TrainConfig::example();
        config.run.seed = u64::MAX;
        assert_eq!(config.to_file(), None, "TOML's numbers end before");
    }
}
